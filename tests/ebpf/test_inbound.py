"""New connections that reach an attached pod go to ztunnel's listener, or nowhere."""

import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ebpf.node import Capture
from tests.ebpf.stage import V4, V6, Actor, Pod, Stage, address, listen, told

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])


def answering(pod: Pod, *places: tuple[int, str, int, str], steer: Stage | None = None, shared: bool = False) -> Any:
    """A process that listens at places and says the word of the place, who called, and what was called."""

    def body() -> Iterator[Any]:
        listeners = {listen(family, host, port, shared=shared): word for family, host, port, word in places}
        if steer:
            capture = Capture.open(steer.pins)
            for listener in listeners:
                for family in (V4, V6) if listener.family == V6 else (V4,):
                    capture.steer_inbound(pod.ip(family), listener.fileno())
        yield "ready"
        while True:
            for listener in select.select(list(listeners), [], [])[0]:
                connection, peer = listener.accept()
                said = f"{listeners[listener]} {address(peer).ip} {address(connection.getsockname())}"
                connection.sendall(said.encode())
                connection.close()

    return body


def attach(stage: Stage, pod: Pod, name: str = "pod") -> None:
    netns = os.open(pod.netns, os.O_RDONLY)
    stage.capture.attach_inbound(netns, name)
    os.close(netns)


def call(family: int, host: str, port: int) -> Any:
    def body() -> str:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.connect((host, port))
            return told(connection)

    return body


def app_on_8080(stage: Stage, pod: Pod) -> Actor:
    app = stage.app(pod, answering(pod, (V6, "::", 8080, "app")))
    app.passed()
    return app


@FAMILIES
def test_ztunnel_gets_what_arrives_from_outside(stage: Stage, family: int) -> None:
    """One dual-stack listener takes every port and both families, and sees both real ends."""
    app_on_8080(stage, stage.b)
    stage.ztunnel(stage.b, answering(stage.b, (V6, "::", 15006, "ztunnel"), steer=stage)).passed()
    attach(stage, stage.b)
    host, caller = stage.b.ip(family), stage.a.ip(family)
    for port in (8080, 9999):
        said = stage.app(stage.a, call(family, host, port)).report()
        bracketed = f"[{host}]" if family == V6 else host
        assert said == f"ztunnel {caller} {bracketed}:{port}"


def test_nobody_listens_beside_ztunnel(stage: Stage) -> None:
    """SO_REUSEPORT would share its connections with whoever in the pod binds the same port."""
    shared = (V6, "::", 15006)
    stage.ztunnel(stage.b, answering(stage.b, (*shared, "ztunnel"), steer=stage, shared=True)).passed()
    stage.app(stage.b, answering(stage.b, (*shared, "thief"), shared=True)).passed()
    attach(stage, stage.b)
    for _ in range(32):
        assert stage.app(stage.a, call(V4, stage.b.ip4, 80)).report().startswith("ztunnel")


def test_an_ipv4_listener_serves_where_there_is_no_ipv6(stage: Stage) -> None:
    stage.ztunnel(stage.b, answering(stage.b, (V4, "0.0.0.0", 15006, "ztunnel"), steer=stage)).passed()
    attach(stage, stage.b)
    assert stage.app(stage.a, call(V4, stage.b.ip4, 80)).report().startswith("ztunnel")


@FAMILIES
def test_loopback_own_address_and_tunnels_pass(stage: Stage, family: int) -> None:
    app_on_8080(stage, stage.b)
    tunnels = stage.ztunnel(stage.b, answering(stage.b, (V6, "::", 15008, "tunnel")))
    tunnels.passed()
    stage.ztunnel(stage.b, answering(stage.b, (V6, "::", 15006, "ztunnel"), steer=stage)).passed()
    attach(stage, stage.b)
    loopback = "::1" if family == V6 else "127.0.0.1"
    assert stage.app(stage.b, call(family, loopback, 8080)).report().startswith("app")
    assert stage.app(stage.b, call(family, stage.b.ip(family), 8080)).report().startswith("app")
    assert stage.app(stage.a, call(family, stage.b.ip(family), 15008)).report().startswith("tunnel")


@FAMILIES
def test_without_a_listener_nothing_reaches_the_app(stage: Stage, family: int) -> None:
    app_on_8080(stage, stage.b)
    attach(stage, stage.b)
    with pytest.raises(ConnectionRefusedError):
        stage.app(stage.a, call(family, stage.b.ip(family), 8080)).report()


@FAMILIES
def test_a_dead_ztunnel_is_a_refusal(stage: Stage, family: int) -> None:
    app_on_8080(stage, stage.b)
    ztunnel = stage.ztunnel(stage.b, answering(stage.b, (V6, "::", 15006, "ztunnel"), steer=stage))
    ztunnel.passed()
    attach(stage, stage.b)
    ztunnel.kill()
    with pytest.raises(ConnectionRefusedError):
        stage.app(stage.a, call(family, stage.b.ip(family), 8080)).report()
    assert stage.capture.counts()["listeners"] == 0


def test_an_address_that_was_unsteered_is_refused(stage: Stage) -> None:
    stage.ztunnel(stage.b, answering(stage.b, (V6, "::", 15006, "ztunnel"), steer=stage)).passed()
    attach(stage, stage.b)
    stage.capture.unsteer_inbound(stage.b.ip4)
    with pytest.raises(ConnectionRefusedError):
        stage.app(stage.a, call(V4, stage.b.ip4, 8080)).report()
    assert stage.app(stage.a, call(V6, stage.b.ip6, 8080)).report().startswith("ztunnel")


def test_a_detached_pod_gets_its_connections_itself(stage: Stage) -> None:
    app_on_8080(stage, stage.b)
    attach(stage, stage.b, "one")
    attach(stage, stage.b, "one")
    assert stage.capture.attached_inbound() == {"one"}
    stage.capture.detach_inbound("one")
    assert stage.capture.attached_inbound() == frozenset()
    assert stage.app(stage.a, call(V4, stage.b.ip4, 8080)).report().startswith("app")


def test_a_name_that_cannot_be_pinned_is_refused(stage: Stage) -> None:
    with pytest.raises(ValueError, match="dots"):
        stage.capture.attach_inbound(0, "pod.default")


# --- delivery: ztunnel dials the app for a client


def delivering(stage: Stage, family: int, host: str, port: int, client: Any) -> Any:
    def body() -> Iterator[Any]:
        capture = Capture.open(stage.pins)
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            capture.present_client(connection.fileno(), client)
            connection.connect((host, port))
            yield address(connection.getsockname())

    return body


def reporting_app(family: int, host: str, protocol: int = 0) -> Any:
    """An app that reports of each caller what accept() and getpeername() say."""

    def body() -> Iterator[Any]:
        listener = socket.socket(family, socket.SOCK_STREAM, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, 8080))
        listener.listen()
        yield "ready"
        while True:
            connection, peer = listener.accept()
            yield address(peer), address(connection.getpeername())
            connection.close()

    return body


@FAMILIES
@pytest.mark.parametrize("dual_stack", [False, True], ids=["own-family", "dual-stack"])
@pytest.mark.parametrize("enrolled", [True, False], ids=["enrolled", "withdrawn"])
def test_the_app_sees_the_client_that_ztunnel_presents(
    stage: Stage, family: int, dual_stack: bool, enrolled: bool
) -> None:
    if enrolled:
        stage.capture.enrol(stage.b.cookie)
    client = address((stage.a.ip(family), 40123))
    app = stage.app(stage.b, reporting_app(*((V6, "::") if dual_stack else (family, stage.b.ip(family)))))
    app.passed()
    attach(stage, stage.b)
    stage.ztunnel(stage.b, delivering(stage, family, stage.b.ip(family), 8080, client)).report()
    assert app.report() == (client, client)
    assert stage.capture.counts()["in_flight"] == 0


def test_an_mptcp_listener_sees_the_client_too(stage: Stage) -> None:
    """As servers in Go listen by default."""
    client = address((stage.a.ip4, 40123))
    app = stage.app(stage.b, reporting_app(V4, stage.b.ip4, socket.IPPROTO_MPTCP))
    app.passed()
    stage.ztunnel(stage.b, delivering(stage, V4, stage.b.ip4, 8080, client)).report()
    assert app.report() == (client, client)


def test_other_callers_with_the_same_port_are_shown_as_they_are(stage: Stage) -> None:
    client = address((stage.a.ip4, 40123))
    app = stage.app(stage.b, reporting_app(V6, "::"))
    app.passed()
    ztunnel = stage.ztunnel(stage.b, delivering(stage, V4, stage.b.ip4, 8080, client))
    port = ztunnel.report().port
    assert app.report()[0] == client
    app.go()

    def from_the_same_port(family: int, source: str, host: str) -> Any:
        def body() -> Iterator[Any]:
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                connection.bind((source, port))
                connection.connect((host, 8080))
                yield "connected"

        return body

    places = [
        (stage.b, V4, "127.0.0.1", "127.0.0.1"),
        (stage.b, V6, "::1", "::1"),
        (stage.a, V4, "0.0.0.0", stage.b.ip4),
    ]
    for pod, family, source, host in places:
        stage.app(pod, from_the_same_port(family, source, host)).report()
        expected = address((source if pod is stage.b else stage.a.ip4, port))
        assert app.report() == (expected, expected)
        app.go()
