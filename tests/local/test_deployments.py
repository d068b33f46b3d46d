"""Deployments as their pods show them: a small cluster that carries out what the controller decides."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deploy.local.controllers import deployments
from deploy.local.controllers.actions import Apply, Delete, SetStatus
from tests.local import objects


class Cluster:
    """Pods become ready one round after they were made."""

    def __init__(self, deployment: dict[str, Any]) -> None:
        self.deployment: dict[str, Any] | None = deployment
        self.pods: dict[str, dict[str, Any]] = {}
        self.rounds = 0

    def round(self) -> int:
        """How many actions there were."""
        found = [*self.pods.values(), *([self.deployment] if self.deployment else [])]
        actions = list(deployments.reconcile(objects.seen(*found), str(self.rounds), objects.NOW))
        self.rounds += 1
        for pod in self.pods.values():
            pod["status"] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        for action in actions:
            match action:
                case Apply(obj):
                    pod = {**obj, "metadata": {**obj["metadata"], "uid": obj["metadata"]["name"]}}
                    self.pods[pod["metadata"]["name"]] = pod
                case Delete(key):
                    del self.pods[key.name]
                case SetStatus(_, _, status) if self.deployment:
                    self.deployment["status"] = {**self.deployment.get("status", {}), **status}
        return len(actions)

    def settle(self) -> None:
        for _ in range(60):
            if not self.round():
                return
        raise AssertionError("it does not come to rest")

    @property
    def ready(self) -> int:
        return sum("status" in pod for pod in self.pods.values())

    @property
    def images(self) -> set[str]:
        return {pod["spec"]["containers"][0]["image"] for pod in self.pods.values()}


def test_pods_look_like_those_of_a_replica_set() -> None:
    cluster = Cluster(objects.deployment(2))
    cluster.settle()
    assert len(cluster.pods) == 2
    for name, pod in cluster.pods.items():
        template = pod["metadata"]["labels"]["pod-template-hash"]
        assert re.fullmatch(rf"web-{template}-[a-z0-9]{{5}}", name)
        assert pod["metadata"]["labels"]["app"] == "web"
        owner = pod["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("ReplicaSet", f"web-{template}", True)


def test_status_counts() -> None:
    cluster = Cluster(objects.deployment(3))
    cluster.settle()
    assert cluster.deployment is not None
    status = cluster.deployment["status"]
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (3, 3, 3)
    assert status["conditions"][0]["status"] == "True"


@given(st.integers(0, 6), st.integers(0, 6))
def test_scaling(before: int, after: int) -> None:
    cluster = Cluster(objects.deployment(before))
    cluster.settle()
    kept = set(cluster.pods)
    cluster.deployment = objects.deployment(after)
    cluster.settle()
    assert len(cluster.pods) == after
    assert len(kept & set(cluster.pods)) == min(before, after)


@given(st.integers(1, 8), st.sampled_from([0, 1, "25%", "100%"]), st.sampled_from([0, 1, "25%", "50%"]))
def test_rolling_over_keeps_enough_ready_and_not_too_many(replicas: int, surge: Any, unavailable: Any) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    cluster = Cluster(objects.deployment(replicas, strategy=strategy))
    cluster.settle()
    cluster.deployment = objects.deployment(replicas, "ambit/client", strategy=strategy)
    assert cluster.deployment is not None
    most, least = deployments._room(cluster.deployment, replicas)
    for _ in range(60):
        if not cluster.round():
            break
        assert len(cluster.pods) <= replicas + most
        assert cluster.ready >= replicas - least
    assert cluster.images == {"ambit/client"}
    assert len(cluster.pods) == replicas


def test_a_pod_that_ended_or_went_is_replaced() -> None:
    cluster = Cluster(objects.deployment(2))
    cluster.settle()
    first, second = list(cluster.pods)
    cluster.pods[first]["status"] = {"phase": "Failed"}
    del cluster.pods[second]
    cluster.round()
    cluster.settle()
    assert len(cluster.pods) == 2
    assert not {first, second} & set(cluster.pods)


def test_pods_go_with_their_deployment() -> None:
    cluster = Cluster(objects.deployment(2))
    cluster.settle()
    cluster.pods["stranger"] = objects.pod("web-stranger")
    cluster.deployment = None
    cluster.settle()
    assert set(cluster.pods) == {"stranger"}
