"""New pods of an enrolled Deployment: not one byte in clear, also when the first thing they do is to dial."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.kube import pods
from tests.kube.installed import NAMESPACE, KubeMesh, until

MARKER = "first-words"
REPLICAS = 6
KILLS = 20  # of each node's agent, one after the other: while it starts again there is none to kill
TALKED = re.compile(r"^(\S+) (\d) first try: (.*); tries: (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Servers:
    """What a first packet may be sent to: enrolled pods on both nodes and their Services, in both families."""

    namespace: str
    addresses: tuple[str, ...]

    @property
    def command(self) -> tuple[str, ...]:
        return ("/first", MARKER, *(word for address in self.addresses for word in (address, str(pods.PORT))))


@pytest.fixture
def servers(mesh: KubeMesh) -> Iterator[Servers]:
    with mesh.namespace("first", meshed=True) as namespace:
        names = [f"server-{node}" for node in mesh.nodes]
        objects = [pods.server(namespace, name, node) for name, node in zip(names, mesh.nodes, strict=True)]
        mesh.apply(pods.manifest(*objects, *(pods.service(namespace, name) for name in names)))
        mesh.wait_ready(namespace)
        mesh.wait_redirected(namespace)
        found = [each for name in names for each in mesh.addresses(f"{namespace}/{name}")]
        found += [each for name in names for each in mesh.service_addresses(f"{namespace}/{name}")]
        yield Servers(namespace, tuple(found))


@pytest.mark.parametrize("roll_outs", [2, pytest.param(25, marks=pytest.mark.long)])
def test_new_pods_send_nothing_in_clear(mesh: KubeMesh, servers: Servers, roll_outs: int) -> None:
    """Roll-out after roll-out, each of new pods on both nodes; and each pod gets its answers."""
    talked: list[tuple[str, ...]] = []
    with mesh.sniff(MARKER.encode()) as clear:
        for number in range(roll_outs):
            more = {"env": [{"name": "ROLL_OUT", "value": str(number)}]}
            made = pods.deployment(servers.namespace, "early", REPLICAS, servers.command)
            made["spec"]["template"]["spec"]["containers"][0].update(more)
            mesh.apply(pods.manifest(made))
            mesh.kubectl("rollout", "status", "deployment/early", "-n", servers.namespace, "--timeout=180s")
            talked += _talked(mesh, servers)
    first = [outcome for _, _, outcome, _ in talked]
    print(
        f"{len(talked)} dials; first tries: { {each: first.count(each) for each in set(first)} }; {clear.frames} frames"
    )
    assert len(talked) == roll_outs * REPLICAS * len(servers.addresses)
    assert {good for _, good, _, _ in talked} == {"1"}
    assert clear.found == []
    assert clear.missed == 0
    assert "without a certificate" not in mesh.kubectl(
        "logs", "-n", NAMESPACE, "-l", "app=ambit-node", "-c", "ztunnel", "--tail=-1"
    )


def test_new_pods_send_nothing_in_clear_while_agents_are_killed(mesh: KubeMesh, servers: Servers) -> None:
    """The kubelet tries again until an agent holds the pod to its end: late, and never in clear."""
    made = pods.deployment(servers.namespace, "early", REPLICAS, servers.command)
    with mesh.sniff(MARKER.encode()) as clear:
        mesh.apply(pods.manifest(made))
        killed = [mesh.kill(node, "deploy.node") for _ in range(KILLS) for node in mesh.nodes]
        mesh.kubectl("rollout", "status", "deployment/early", "-n", servers.namespace, "--timeout=300s")
        talked = _talked(mesh, servers)
    assert any(killed)
    assert len(talked) == REPLICAS * len(servers.addresses)
    assert {good for _, good, _, _ in talked} == {"1"}
    assert clear.found == []
    assert clear.missed == 0


def test_the_search_would_find_them(mesh: KubeMesh, servers: Servers) -> None:
    """The same pods, not enrolled: each of their dials to another node is seen."""
    with mesh.namespace("beside") as beside, mesh.sniff(MARKER.encode()) as clear:
        pod = pods.pod(beside, "early", servers.command, mesh.nodes[0])
        mesh.apply(pods.manifest(pod))
        mesh.wait_ready(beside)
        until(lambda: bool(clear.found), "a byte in clear")


def _talked(mesh: KubeMesh, servers: Servers) -> list[tuple[str, ...]]:
    """What the pods of this roll-out say of their first dials, once all have ended them."""
    living = [
        each["metadata"]["name"]
        for each in mesh.get("pods", "-n", servers.namespace, "-l", "app=early")["items"]
        if "deletionTimestamp" not in each["metadata"]
    ]
    logs: dict[str, str] = {}

    def done() -> bool:
        for name in living:
            if "done" not in logs.get(name, ""):
                logs[name] = mesh.kubectl("logs", name, "-n", servers.namespace)
        return all("done" in text for text in logs.values())

    until(done, "every pod has dialled")
    return [match for text in logs.values() for match in TALKED.findall(text)]
