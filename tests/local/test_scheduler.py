"""Where pods go, and what is said of those that cannot go anywhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

from deploy.local.controllers import scheduler
from deploy.local.controllers.actions import Merge, SetStatus
from tests.local import objects

READY = (objects.node("node1"), objects.node("node2"))
HOME = (objects.namespace(), objects.account())


def schedule(*found: dict[str, Any]) -> dict[str, str]:
    """Node, or why there is none, by pod."""
    result = {}
    for action in scheduler.reconcile(objects.seen(*found), objects.NOW):
        if isinstance(action, Merge):
            result[action.key.name] = action.fields["spec"]["nodeName"]
        elif isinstance(action, SetStatus):
            result[action.key.name] = action.status["conditions"][-1]["message"]
    return result


def waiting(name: str, **spec: Any) -> dict[str, Any]:
    return {**objects.pod(name, **spec), "status": {}}


def test_pods_of_a_deployment_are_spread() -> None:
    pods = [waiting(f"web-{index}") for index in range(4)]
    for pod in pods:
        pod["metadata"]["labels"]["pod-template-hash"] = "abc"
    others = [objects.pod("busy-1", nodeName="node1"), objects.pod("busy-2", nodeName="node1")]
    found = schedule(*HOME, *READY, *others, *pods)
    assert Counter(found.values()) == {"node1": 2, "node2": 2}


def test_a_node_selector() -> None:
    chosen = {"kubernetes.io/hostname": "node2"}
    assert schedule(*HOME, *READY, waiting("web-1", nodeSelector=chosen)) == {"web-1": "node2"}
    found = schedule(*HOME, *READY, waiting("web-1", nodeSelector={"disk": "fast"}))
    assert "spec.nodeSelector" in found["web-1"]


def test_what_a_pod_refers_to_must_be_there() -> None:
    assert schedule(*READY, waiting("web-1")) == {"web-1": "there is no namespace shop"}
    found = schedule(*HOME, *READY, waiting("web-1", serviceAccountName="nobody"))
    assert "service account nobody" in found["web-1"]
    assert "no node node9" in schedule(*HOME, *READY, waiting("web-1", nodeName="node9"))["web-1"]


def test_only_ready_nodes() -> None:
    assert schedule(*HOME, objects.node("node1", ready=False), waiting("web-1")) == {"web-1": "no node is ready"}
    found = schedule(*HOME, objects.node("node1", ready=False), objects.node("node2"), waiting("web-1"))
    assert found == {"web-1": "node2"}


def test_pods_that_are_over_or_placed_are_left_alone() -> None:
    over = {**objects.pod("web-1"), "status": {"phase": "Succeeded"}}
    assert schedule(*HOME, *READY, over, objects.pod("web-2", nodeName="node1")) == {}
