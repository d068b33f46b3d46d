"""When an installation is done, and what is said while it is not."""

from __future__ import annotations

from typing import Any

import pytest

from cli.install.readiness import of_daemon_set, of_deployment, reasons


def daemon_set(generation: int = 2, **status: Any) -> Any:
    return {"metadata": {"generation": generation}, "status": {"observedGeneration": 2, **status}}


def deployment(wanted: int = 1, **status: Any) -> Any:
    seen = {"observedGeneration": 1, **status}
    return {"metadata": {"generation": 1}, "spec": {"replicas": wanted}, "status": seen}


@pytest.mark.parametrize(
    ("found", "done"),
    [
        (daemon_set(desiredNumberScheduled=2, updatedNumberScheduled=2, numberReady=2), True),
        (daemon_set(desiredNumberScheduled=2, updatedNumberScheduled=2, numberReady=1), False),
        (daemon_set(desiredNumberScheduled=2, updatedNumberScheduled=1, numberReady=2), False),
        (daemon_set(generation=3, desiredNumberScheduled=2, updatedNumberScheduled=2, numberReady=2), False),
    ],
)
def test_a_daemon_set_is_done_when_all_its_newest_pods_are_ready(found: Any, done: bool) -> None:
    assert of_daemon_set(found).done is done


@pytest.mark.parametrize(
    ("found", "done"),
    [
        (deployment(1, replicas=1, updatedReplicas=1, readyReplicas=1), True),
        (deployment(2, replicas=2, updatedReplicas=2, readyReplicas=1), False),
        (deployment(1), False),
    ],
)
def test_a_deployment_is_done_when_all_its_newest_pods_are_ready(found: Any, done: bool) -> None:
    assert of_deployment(found).done is done


def test_a_deployment_is_not_done_while_an_old_pod_remains() -> None:
    found = deployment(1, replicas=2, updatedReplicas=1, readyReplicas=2)
    assert not of_deployment(found).done


def pod(*statuses: Any, **status: Any) -> Any:
    return {
        "metadata": {"name": "ambit-node-x"},
        "spec": {"nodeName": "node1"},
        "status": {"phase": "Pending", "containerStatuses": list(statuses), **status},
    }


PULL = {"name": "agent", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off\npulling image"}}}
CRASH = {
    "name": "ztunnel",
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 1, "message": "ztunnel: no programs\n"}},
}
RUNS = {"name": "cni", "ready": False, "state": {"running": {}}}
PENDING = {"name": "cni", "state": {"waiting": {"reason": "PodInitializing"}}}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (pod(PULL), ["ambit-node-x on node1: agent waits: ImagePullBackOff Back-off pulling image"]),
        (pod(CRASH), ["ambit-node-x on node1: ztunnel waits: CrashLoopBackOff, its last words: ztunnel: no programs"]),
        (pod(RUNS), ["ambit-node-x on node1: cni runs and is not ready"]),
        (pod(PULL, PENDING), ["ambit-node-x on node1: agent waits: ImagePullBackOff Back-off pulling image"]),
        (pod(), ["ambit-node-x on node1: Pending"]),
        (pod(conditions=[{"type": "Ready", "status": "True"}]), []),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"}]),
            ["ambit-node-x on node1: no node for it: 0/2 nodes are available"],
        ),
    ],
)
def test_a_pod_that_is_not_ready_says_why(found: Any, told: list[str]) -> None:
    assert list(reasons([found])) == told
