"""Connections of the node itself (the kubelet's probes) reach the apps of captured pods, and no others do."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ebpf.stage import V4, V6, Actor, Stage, listen, loader
from tests.ebpf.test_inbound import FAMILIES, answering, app_on_8080, attach, call
from tests.scenarios.home import until

pytestmark = pytest.mark.root


@pytest.fixture
def node(stage: Stage) -> Iterator[Stage]:
    """The network namespace of pod a is the node's; pod b is captured, and its app listens."""
    place = ("load", "--pins", str(stage.pins), "--cgroup", str(stage.cgroup))
    done = loader(*place, "--node-cgroup", str(stage.cgroup))
    assert done.returncode == 0, done.stderr
    try:
        stage.capture.exempt_node(stage.a.cookie)
        stage.capture.enrol(stage.b.cookie, [stage.b.ip4, stage.b.ip6])
        app_on_8080(stage, stage.b)
        attach(stage, stage.b)
        yield stage
    finally:
        stage.capture.exempt_node(0)
        loader(*place)


@FAMILIES
def test_the_node_reaches_the_app(node: Stage, family: int) -> None:
    """With ztunnel or without."""
    assert node.app(node.a, call(family, node.b.ip(family), 8080)).report().startswith("app")
    node.ztunnel(node.b, answering(node.b, (V6, "::", 15006, "ztunnel"), steer=node)).passed()
    assert node.app(node.a, call(family, node.b.ip(family), 8080)).report().startswith("app")
    assert node.capture.counts()["node_flows"] == 0


def test_a_closed_port_is_refused_by_the_app(node: Stage) -> None:
    with pytest.raises(ConnectionRefusedError):
        node.app(node.a, call(V4, node.b.ip4, 8081)).report()
    assert node.capture.counts()["node_flows"] == 0


@FAMILIES
def test_others_with_the_address_of_the_node_do_not(node: Stage, family: int) -> None:
    """As traffic that the node masquerades has."""
    node.ztunnel(node.b, answering(node.b, (V6, "::", 15006, "ztunnel"), steer=node)).passed()
    node.capture.exempt_node(node.b.cookie)
    assert node.app(node.a, call(family, node.b.ip(family), 8080)).report().startswith("ztunnel")


def test_a_pod_that_has_left_is_forgotten(node: Stage) -> None:
    node.capture.withdraw(node.b.cookie)
    assert node.capture.counts()["pods_by_address"] == 0
    with pytest.raises(ConnectionRefusedError):
        node.app(node.a, call(V4, node.b.ip4, 8080)).report()  # still attached, and nobody listens


def test_an_address_that_another_pod_has_now_stays(node: Stage) -> None:
    node.capture.enrol(4711, [node.b.ip4])
    node.capture.withdraw(node.b.cookie)
    assert node.capture.counts()["pods_by_address"] == 1
    assert node.app(node.a, call(V4, node.b.ip4, 8080)).report().startswith("app")
    node.capture.withdraw(4711)


def test_a_flow_is_noted_as_long_as_its_socket_lives(node: Stage) -> None:
    def app() -> Iterator[Any]:
        listener = listen(V4, node.b.ip4, 8082)
        yield "ready"
        connection, _ = listener.accept()
        yield "accepted"
        connection.close()

    def dial() -> Iterator[Any]:
        with socket.socket(V4, socket.SOCK_STREAM) as connection:
            connection.connect((node.b.ip4, 8082))
            yield "connected"
        yield "closed"

    server: Actor = node.app(node.b, app)
    server.passed()
    client = node.app(node.a, dial)
    assert client.report() == "connected"
    assert node.capture.counts()["node_flows"] == 1
    assert client.next() == "closed"
    server.passed()
    client.go()
    until(lambda: node.capture.counts()["node_flows"] == 0, "both ends are closed, and nothing is noted of the flow")


def test_without_the_cgroup_of_the_node_nobody_passes(node: Stage) -> None:
    done = loader("load", "--pins", str(node.pins), "--cgroup", str(node.cgroup))
    assert done.returncode == 0, done.stderr
    with pytest.raises(ConnectionRefusedError) as refused:
        node.app(node.a, call(V4, node.b.ip4, 8080)).report()
    assert refused.value.errno == errno.ECONNREFUSED
