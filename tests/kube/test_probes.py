"""The kubelet's probes of enrolled pods: they come from the node, and are no connections of the mesh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kube import pods
from tests.kube.installed import NAMESPACE, KubeMesh, until

PORTS = {"http": 8081, "tcp": 8082, "grpc": 8083, "exec": 8084}
OFTEN = {"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 4}


def probe(kind: str, port: int) -> dict[str, Any]:
    match kind:
        case "http":
            return {"httpGet": {"path": "/probed", "port": port}, **OFTEN}
        case "tcp":
            return {"tcpSocket": {"port": port}, **OFTEN}
        case "grpc":
            return {"grpc": {"port": port}, **OFTEN}
    return {"exec": {"command": ["/probe", "get", f"http://127.0.0.1:{port}/probed"]}, **OFTEN}


def probed(namespace: str, name: str, node: str) -> pods.Object:
    """A container for each kind of probe, all of which have it as start-up, liveness and readiness probe."""
    made = pods.pod(namespace, name, ("/traffic",), node)
    (container,) = made["spec"]["containers"]
    made["spec"]["containers"] = [
        {
            **container,
            "name": kind,
            "command": ["/traffic", "health", str(port)],
            **{f"{purpose}Probe": probe(kind, port) for purpose in ("startup", "liveness", "readiness")},
        }
        for kind, port in PORTS.items()
    ]
    return made


class Watched:
    """A pod whose probes are counted."""

    def __init__(self, mesh: KubeMesh, namespace: str, name: str) -> None:
        self._mesh, self._namespace, self._name = mesh, namespace, name

    def counts(self) -> dict[str, int]:
        """Of those that the container itself can tell."""
        logs = ("logs", self._name, "-n", self._namespace, "-c")
        return {kind: self._mesh.kubectl(*logs, kind).count("asked") for kind in PORTS if kind != "tcp"}

    def await_more(self, more: int = 5) -> None:
        before = self.counts()
        until(
            lambda: all(count >= before[kind] + more for kind, count in self.counts().items()),
            f"{more} more probes of each kind",
        )

    def assert_undisturbed(self) -> None:
        pod = self._mesh.get("pod", self._name, "-n", self._namespace)
        statuses = pod["status"]["containerStatuses"]
        assert {each["name"]: (each["ready"], each["restartCount"]) for each in statuses} == dict.fromkeys(
            PORTS, (True, 0)
        )
        assert self.complaints() == []

    def complaints(self) -> list[str]:
        events = self._mesh.get("events", "-n", self._namespace)["items"]
        return [each["message"] for each in events if each["reason"] in ("Unhealthy", "ProbeWarning", "Killing")]


@pytest.fixture(scope="module")
def place(mesh: KubeMesh) -> Iterator[str]:
    with mesh.namespace("probes") as name:
        mesh.apply(pods.manifest(probed(name, "running", mesh.nodes[0])))
        mesh.wait_ready(name)
        yield name


def test_a_running_pod_stays_ready_when_it_is_enrolled(mesh: KubeMesh, place: str) -> None:
    watched = Watched(mesh, place, "running")
    mesh.label("namespace", place, "ambient")
    mesh.wait_redirected(place)
    watched.await_more()
    watched.assert_undisturbed()


def test_a_pod_that_starts_enrolled_becomes_ready(mesh: KubeMesh, place: str) -> None:
    mesh.label("namespace", place, "ambient")
    mesh.apply(pods.manifest(probed(place, "new", mesh.nodes[0])))
    mesh.wait_ready(place)
    mesh.wait_redirected(place)
    watched = Watched(mesh, place, "new")
    watched.await_more()
    watched.assert_undisturbed()


def test_probes_go_on_while_ztunnel_is_away(mesh: KubeMesh, place: str) -> None:
    mesh.label("namespace", place, "ambient")
    mesh.wait_redirected(place)
    watched = Watched(mesh, place, "running")
    assert mesh.kill(mesh.nodes[0], "ztunnel.agent")
    watched.await_more()
    daemons = ("rollout", "status", "daemonset/ambit-node", "-n", NAMESPACE, "--timeout=120s")
    mesh.kubectl(*daemons)
    watched.await_more()
    watched.assert_undisturbed()


def test_probes_go_on_when_the_pod_leaves_the_mesh(mesh: KubeMesh, place: str) -> None:
    mesh.label("namespace", place, None)
    mesh.wait_redirected(place, "")
    watched = Watched(mesh, place, "running")
    watched.await_more()
    watched.assert_undisturbed()
