"""Two workers for one agent: they share the listeners, and each is told everything."""

from __future__ import annotations

import json
import os
import re
import signal
from itertools import count
from pathlib import Path

import pytest

from mesh.model.policy import Action, Authorization, PolicyScope
from mesh.model.update import MeshUpdate
from tests.agent.apps import Client, echo_server
from tests.agent.node import Node, TestPod, eventually

pytestmark = pytest.mark.root

PORT = 8080
MOST_TRIES = 200  # connections until each worker has taken one


@pytest.fixture
def mesh(node: Node) -> tuple[TestPod, TestPod]:
    web, store = node.pod("web"), node.pod("store")
    node.control.publish(MeshUpdate(workloads=(web.workload(), store.workload())))
    echo_server(node, store, PORT)
    node.start(ZTUNNEL_WORKERS="2")
    node.agent.start_with(web, store)
    node.enrol(web, store)
    eventually(node.ready, "readiness")
    assert len(node.workers()) == 2
    return web, store


def sockets(worker: int) -> int:
    folder = Path(f"/proc/{worker}/fd")
    return sum(
        os.readlink(folder / name).startswith("socket:") for name in os.listdir(folder) if (folder / name).is_symlink()
    )


def spread(node: Node, web: TestPod, store: TestPod) -> list[Client]:
    """Clients whose connections stand, some with each worker."""
    before = {worker: sockets(worker) for worker in node.workers()}
    clients: list[Client] = []
    for _ in count():
        client = Client(node, web, store.ip4, PORT)
        assert client.new() == "ok"
        clients.append(client)
        if len(clients) >= 4 and all(sockets(worker) > few for worker, few in before.items()):
            return clients
        assert len(clients) < MOST_TRIES, "one worker takes all connections"
    raise AssertionError("unreachable")


def test_both_accept_and_are_told_of_as_one(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    clients = spread(node, *mesh)
    live = json.loads(node.get(15000, "/connections")[1])
    assert sum(one["direction"] == "outbound" for one in live) == len(clients)
    assert sum(one["direction"] == "inbound" for one in live) == len(clients)
    shown = re.search(r'ambit_worker\{name="connections"\} (\S+)', eventually(node.metrics, "metrics"))
    assert shown is not None
    assert float(shown[1]) == 2 * len(clients)
    opened = r'istio_tcp_connections_opened_total\{[^}]*reporter="source"[^}]*\} (\S+)'
    eventually(lambda: re.findall(opened, node.metrics()) == [f"{len(clients)}.0"], "the count of both together")


def test_one_is_killed_and_the_other_goes_on(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    clients = spread(node, *mesh)
    killed, other = sorted(node.workers())
    os.kill(killed, signal.SIGKILL)
    # What went through the other one alone goes on; what the dead one had a hand in is over.
    assert Client(node, mesh[0], mesh[1].ip4, PORT).new() == "ok"
    eventually(lambda: len(node.workers()) == 2 and killed not in node.workers(), "another worker")
    assert other in node.workers()
    eventually(node.ready, "readiness")
    assert all(eventually(lambda client=client: client.again() == "ok", "service") for client in clients)  # type: ignore[misc]
    spread(node, *mesh)


def test_policy_and_certificates_reach_both(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    spread(node, *mesh)
    node.control.publish(MeshUpdate(policies=(Authorization("nobody", "shop", PolicyScope.NAMESPACE, Action.ALLOW),)))
    web, store = mesh
    eventually(lambda: Client(node, web, store.ip4, PORT).new() != "ok", "the policy")
    refused = [Client(node, web, store.ip4, PORT).new() for _ in range(20)]
    eventually(lambda: json.loads(node.get(15000, "/connections")[1]) == [], "the end of what stood, in both workers")
    assert "ok" not in refused
