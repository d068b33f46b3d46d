"""Two workers for one agent: they share the listeners, and each is told everything."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from ebpf.netns import in_netns
from mesh.model import ports
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


@contextlib.contextmanager
def alone(node: Node, worker: int) -> Iterator[None]:
    """The other ones are stopped: it takes all connections."""
    others = node.workers() - {worker}
    try:
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def shown(web: TestPod, store: TestPod) -> bytes:
    """The certificate that pod store's ztunnel proves itself with, as a stranger sees it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with web.netns.open() as netns:
        plain = in_netns(netns.fileno(), socket.socket)
    plain.settimeout(10)
    plain.connect((store.ip4, ports.HBONE))
    with context.wrap_socket(plain) as secured:
        certificate = secured.getpeercert(True)
    assert certificate
    return certificate


def test_a_renewed_certificate_reaches_both_and_cuts_nothing(node: Node) -> None:
    web, store = node.pod("web"), node.pod("store")
    node.control.lifetime = timedelta(seconds=6)  # renewed after three
    node.control.publish(MeshUpdate(workloads=(web.workload(), store.workload())))
    echo_server(node, store, PORT)
    node.start(ZTUNNEL_WORKERS="2")
    node.agent.start_with(web, store)
    node.enrol(web, store)
    eventually(node.ready, "readiness")
    clients = spread(node, web, store)
    first = shown(web, store)
    for worker in node.workers():
        with alone(node, worker):
            eventually(lambda: shown(web, store) != first, f"worker {worker}'s new certificate")
    issued = len(node.control.issued)
    eventually(lambda: len(node.control.issued) >= issued + 4, "two more for each pod")  # the first ones have expired
    assert [client.again() for client in clients] == ["ok"] * len(clients)
    assert Client(node, web, store.ip4, PORT).new() == "ok"
