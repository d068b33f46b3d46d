"""A waypoint that goes and comes back, as an app and the next waypoint see it."""

from __future__ import annotations

import socket

import pytest

from mesh.model import ports
from mesh.model.address import Ip, SocketAddress
from mesh.model.workload import GatewayAddress, NetworkAddress, PortMapping, Service
from tests.worker.hbone_server import HbonePeer, HboneServer
from tests.worker.node import Node, Worker

pytestmark = pytest.mark.root

GET = b"GET /a HTTP/1.1\r\nHost: b\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\n\r\nx"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
VIP = SocketAddress(Ip("10.96.0.9"), 80)


@pytest.fixture
def waypoint(node: Node) -> HboneServer:
    """Pod b, in the test's hands."""
    return HboneServer(node.b, node.certificate(node.b.identity))


def bound(node: Node, **environment: str) -> Worker:
    """Pod a's worker. Service `web` is behind a waypoint, whose only pod is b."""
    listens = (PortMapping(ports.HBONE, ports.HBONE),)
    guard = Service("guard", "shop", "guard.shop.svc.cluster.local", ports=listens)
    addresses = (NetworkAddress("", VIP.ip),)
    web = Service(
        "web",
        "shop",
        "web.shop.svc.cluster.local",
        addresses,
        (PortMapping(VIP.port, 8080),),
        waypoint=GatewayAddress(guard.key, ports.HBONE),
    )
    worker = node.worker(node.a, **environment)
    worker.update(node.b.workload(services={guard.key: listens}), services=(guard, web))
    return worker


def opened(waypoint: HboneServer) -> tuple[HbonePeer, int]:
    """The next tunnel and its first stream, answered."""
    peer = waypoint.accept()
    stream = peer.request().stream_id
    assert stream is not None
    peer.answer(stream)
    return peer, stream


def test_what_may_be_repeated_is_asked_of_the_next_one(node: Node, waypoint: HboneServer) -> None:
    bound(node)
    with node.a.dial(VIP) as app:
        first, stream = opened(waypoint)
        for _ in range(2):  # and so is a later request of the connection
            app.sendall(GET)
            assert first.received(stream, len(GET)).endswith(GET)
            first.sock.close()
            first, stream = opened(waypoint)
            assert first.received(stream, len(GET)) == GET
            first.send(stream, OK)
            assert app.recv(100) == OK
            first.events.clear()


@pytest.mark.parametrize("request_", [POST, POST[:-1], POST.replace(b"POST", b"PUT")[:-1]])
def test_what_may_not_be_repeated_is_answered(node: Node, waypoint: HboneServer, request_: bytes) -> None:
    bound(node)
    with node.a.dial(VIP) as app:
        peer, stream = opened(waypoint)
        app.sendall(request_)
        peer.received(stream, len(request_))
        peer.sock.close()
        answer = read_all(app)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"the waypoint has gone in the middle of the request" in answer


def test_a_request_that_ends_each_waypoint_is_not_repeated_for_ever(node: Node, waypoint: HboneServer) -> None:
    bound(node)
    with node.a.dial(VIP) as app:
        app.sendall(GET)
        for _ in range(2):
            peer, stream = opened(waypoint)
            peer.received(stream, len(GET))
            peer.sock.close()
        assert read_all(app).startswith(b"HTTP/1.1 503 ")


def test_a_connection_at_rest_goes_on(node: Node, waypoint: HboneServer) -> None:
    bound(node)
    with node.a.dial(VIP) as app:
        for leave in (lambda peer, stream: peer.sock.close(), HbonePeer.end):
            peer, stream = opened(waypoint)
            app.sendall(POST)
            peer.received(stream, len(POST))
            peer.send(stream, OK)
            assert app.recv(100) == OK
            leave(peer, stream)  # type: ignore[operator]
            if leave is HbonePeer.end:
                stream = peer.request().stream_id or 0
                peer.answer(stream)
                app.sendall(GET)
                assert peer.received(stream, len(GET)) == GET


@pytest.mark.parametrize(
    ("said", "heard"), [(GET, OK[:-1]), (b"\x16\x03\x01 no HTTP", b""), (GET + GET, b""), (b"", b"220 hello\r\n")]
)
def test_what_is_under_way_is_reset(node: Node, waypoint: HboneServer, said: bytes, heard: bytes) -> None:
    bound(node)
    with node.a.dial(VIP) as app:
        peer, stream = opened(waypoint)
        app.sendall(said)
        peer.received(stream, len(said))
        if heard:
            peer.send(stream, heard)
            assert app.recv(100) == heard
        peer.sock.close()
        with pytest.raises(ConnectionResetError):
            app.recv(1)


def test_an_end_that_was_announced_reaches_the_app(node: Node, waypoint: HboneServer) -> None:
    bound(node)
    last = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with node.a.dial(VIP) as app:
        peer, stream = opened(waypoint)
        app.sendall(GET)
        peer.received(stream, len(GET))
        peer.send(stream, last, end=True)
        assert read_all(app) == last


def test_a_connection_waits_for_a_waypoint_that_is_away(node: Node) -> None:
    bound(node)
    with node.a.dial(VIP) as app:
        app.sendall(POST)
        waypoint = HboneServer(node.b, node.certificate(node.b.identity))
        peer, stream = opened(waypoint)
        assert peer.received(stream, len(POST)) == POST


@pytest.mark.parametrize(("said", "told"), [(POST, True), (b"no HTTP\r\n", False)])
def test_who_has_waited_long_enough_hears_why(node: Node, said: bytes, told: bool) -> None:
    worker = bound(node, AMBIT_WAYPOINT_TIMEOUT="200ms")
    with node.a.dial(VIP) as app:
        app.sendall(said)
        if told:
            answer = read_all(app)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"cannot connect to" in answer or b"not ready" in answer
        else:
            with pytest.raises(ConnectionResetError):
                app.recv(1)
    assert worker.ended().flags == "CONNECT"


def test_who_gives_up_waiting_is_recorded_with_the_reason(node: Node) -> None:
    worker = bound(node)
    app = node.a.dial(VIP)
    app.sendall(POST)
    worker.wait(lambda: worker.opened, "the connection")
    app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    app.close()
    error = worker.ended().error
    assert "the app reset the connection" in error
    assert "cannot connect" in error


def read_all(app: socket.socket) -> bytes:
    data = b""
    while piece := app.recv(65536):
        data += piece
    return data
