"""The agent with its worker: what pods notice when processes of the mesh come, go and die."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from dataclasses import replace

import pytest

from mesh.model.policy import Action, Authorization, PolicyScope, Rule
from mesh.model.update import MeshUpdate
from tests.agent.apps import Client, echo_server
from tests.agent.node import Node, TestPod, eventually

pytestmark = pytest.mark.root

PORT = 8080
WEB, SHOP = "spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/store"


@pytest.fixture
def mesh(node: Node) -> tuple[TestPod, TestPod]:
    """Two pods whose workloads are published; an echo server in the second."""
    web, store = node.pod("web"), node.pod("store")
    node.control.publish(MeshUpdate(workloads=(web.workload(), store.workload())))
    echo_server(node, store, PORT)
    return web, store


def enrolled(node: Node, *pods: TestPod) -> None:
    node.agent.start_with(*pods)
    node.enrol(*pods)
    eventually(node.ready, "readiness")


def test_connections_are_carried_logged_and_counted(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    web, store = mesh
    node.start()
    enrolled(node, web, store)
    client = Client(node, web, store.ip4, PORT)
    assert client.new() == "ok"
    live = eventually(lambda: connections(node), "both records")
    assert {one["direction"] for one in live} == {"outbound", "inbound"}
    assert all(one["sourceIdentity"] == WEB and one["destinationIdentity"] == SHOP for one in live)
    assert all(one["protocol"] == "HBONE" for one in live)
    states = node.dump()["workloadState"]
    assert states[web.uid]["connections"]["outbound"][0]["originalDst"] == f"{store.ip4}:{PORT}"
    labelled = r'istio_tcp_received_bytes_total\{[^}]*reporter="source"[^}]*\} (\S+)'
    assert re.findall(labelled, node.metrics()) == ["4.0"]  # while it lives
    assert client.new() == "ok"
    closed = r'istio_tcp_connections_closed_total\{[^}]*reporter="source"[^}]*\} 1.0'
    text = eventually(lambda: re.search(closed, node.metrics()), "the count of the first one").group()
    for label in (
        'source_workload="web"',
        f'source_principal="{WEB}"',
        f'destination_principal="{SHOP}"',
        'destination_workload_namespace="shop"',
        'connection_security_policy="mutual_tls"',
        'request_protocol="tcp"',
        'response_flags="-"',
    ):
        assert label in text
    line = eventually(lambda: access_line(node, "outbound"), "the access log")
    for field in ('src.workload="web"', 'dst.workload="store"', f'src.identity="{WEB}"', "bytes_sent=4 bytes_recv=4"):
        assert field in line


def test_a_worker_that_dies_is_replaced_and_serves(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    web, store = mesh
    node.start()
    enrolled(node, web, store)
    client = Client(node, web, store.ip4, PORT)
    assert client.new() == "ok"
    (worker,) = node.workers()
    os.kill(worker, signal.SIGKILL)
    # The agent holds the listeners, so a connection that comes at the worst moment waits for the next worker.
    assert client.new() == "ok"
    eventually(lambda: node.workers() - {worker}, "another worker")
    eventually(lambda: "ambit_worker_restarts_total 1.0" in node.metrics(), "the count")


def test_an_agent_that_dies_leaves_a_worker_that_serves_until_a_successor_does(
    node: Node, mesh: tuple[TestPod, TestPod]
) -> None:
    web, store = mesh
    agent = node.start()
    enrolled(node, web, store)
    client = Client(node, web, store.ip4, PORT)
    assert client.new() == "ok"
    (orphan,) = node.workers()
    agent.kill()
    agent.wait()
    assert client.again() == "ok"
    assert client.new() == "ok"
    node.start()
    node.agent.accept()
    assert node.agent.add(web) == ""
    assert orphan in node.workers()
    assert node.agent.add(store) == ""
    assert node.agent.snapshot_sent() == ""
    eventually(lambda: orphan not in node.workers(), "the end of the predecessor's worker")
    assert len(node.workers()) == 1
    assert client.new() == "ok"


def test_the_next_pod_of_a_name_outlives_the_late_news_of_the_first_ones_end(
    node: Node, mesh: tuple[TestPod, TestPod]
) -> None:
    """As in a StatefulSet, or when a pod is deleted by force."""
    web, store = mesh
    first = replace(node.pod("first"), name=web.name, serial="00000001")
    node.start()
    enrolled(node, first, store)
    assert node.agent.add(web) == ""
    node.enrol(web)
    assert node.agent.remove(first) == ""
    assert Client(node, web, store.ip4, PORT).new() == "ok"
    assert not first.listeners()


def test_without_a_control_plane_a_restart_serves_from_the_disk(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    web, store = mesh
    agent = node.start()
    enrolled(node, web, store)
    client = Client(node, web, store.ip4, PORT)
    assert client.new() == "ok"
    eventually(lambda: {one.name for one in node.state.iterdir()} >= {"mesh.msgpack", "certificates.msgpack"}, "files")
    stop(node, agent)
    node.control.stop()
    node.start()
    enrolled(node, web, store)
    assert node.certificates()[WEB]["state"] == "Available"
    assert client.new() == "ok"


def test_connections_are_refused_until_the_mesh_is_known(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    web, store = mesh
    node.control.stop()
    node.start(AMBIT_WORKLOAD_TIMEOUT="200ms")
    node.agent.start_with(web, store)
    node.enrol(web, store)
    client = Client(node, web, store.ip4, PORT)
    assert client.new() != "ok"
    assert "mesh state not known yet" in node.readiness()[1]
    node.control.start()
    eventually(lambda: "mesh" not in node.readiness()[1], "the mesh")
    eventually(lambda: client.new() == "ok", "a connection")


def test_draining_lets_connections_end_and_refuses_new_ones(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    web, store = mesh
    agent = node.start(CONNECTION_TERMINATION_DEADLINE="10s")
    enrolled(node, web, store)
    standing = Client(node, web, store.ip4, PORT)
    assert standing.new() == "ok"
    agent.terminate()
    eventually(lambda: not web.listeners(), "closing of the listeners")
    assert "shutting down" in node.readiness()[1]
    assert standing.again() == "ok"
    assert Client(node, web, store.ip4, PORT).new().startswith("failed")
    standing.new()  # gives up the one that stood
    assert agent.wait(timeout=8) == 0
    assert not node.workers()


def test_a_refused_connection_says_why(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    web, store = mesh
    # A policy with no rules allows nobody.
    policy = Authorization("nobody", "shop", PolicyScope.NAMESPACE, Action.ALLOW)
    node.control.publish(MeshUpdate(policies=(policy,)))
    node.start()
    enrolled(node, web, store)
    assert Client(node, web, store.ip4, PORT).new() != "ok"
    line = eventually(lambda: access_line(node, "inbound"), "the access log")
    assert "\twarn\t" in line
    assert "connection failed" in line
    assert 'response_flags="DENY"' in line
    theirs = eventually(lambda: access_line(node, "outbound"), "the access log of the client's end")
    assert "answered CONNECT with status 401: the only ALLOW policy shop/nobody does not match" in theirs
    failed = eventually(lambda: re.findall(r"istio_tcp_connections_failed_total\{.*", node.metrics()), "the count")
    assert any('reporter="destination"' in one and 'response_flags="DENY"' in one for one in failed)


def test_a_policy_that_has_not_come_denies_until_it_comes(node: Node, mesh: tuple[TestPod, TestPod]) -> None:
    web, store = mesh
    policy = Authorization("late", "shop", PolicyScope.WORKLOAD_SELECTOR, Action.ALLOW, (Rule(),))
    node.control.publish(MeshUpdate(workloads=(store.workload(authorization_policies=(policy.key,)),)))
    node.start()
    enrolled(node, web, store)
    assert Client(node, web, store.ip4, PORT).new() != "ok"
    line = eventually(lambda: access_line(node, "inbound"), "the access log")
    assert "policy shop/late is referenced by the workload but has not been delivered" in line
    node.control.publish(MeshUpdate(policies=(policy,)))
    eventually(lambda: Client(node, web, store.ip4, PORT).new() == "ok", "the policy")


def connections(node: Node) -> list[dict[str, str]]:
    live: list[dict[str, str]] = json.loads(node.get(15000, "/connections")[1])
    return live if len(live) == 2 else []


def access_line(node: Node, direction: str) -> str:
    lines = [line for line in node.log.splitlines() if "\taccess\t" in line and f'direction="{direction}"' in line]
    return lines[0] if lines else ""


def stop(node: Node, agent: subprocess.Popen[bytes]) -> None:
    agent.terminate()
    assert agent.wait(timeout=15) == 0, node.log
