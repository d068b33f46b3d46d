"""Plain TCP through a waypoint, end to end."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mesh.model.http_policy import HttpAction, HttpPolicy, PolicyRule, Source
from mesh.model.routing import AppProtocol, Gateway
from tests.waypoint.rig import VIP, Rig, account, app, is_closed, read_all, read_exactly


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as running:
        yield running


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)
    sock.sendall(b"bye")


def greet_first(sock: socket.socket) -> None:
    sock.sendall(b"220 ready\r\n")
    echo(sock)


@pytest.mark.parametrize("protocol", [AppProtocol.TCP, AppProtocol.AUTO])
def test_bytes_and_ends_cross_both_ways(rig: Rig, protocol: AppProtocol) -> None:
    with app("127.9.1.1", echo) as port:
        rig.simple(protocol, target=port)
        with rig.dial() as sock:
            sock.sendall(b"\x00\x01\x02hello")
            assert read_exactly(sock, 8) == b"\x00\x01\x02hello"
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"bye"


@pytest.mark.parametrize("protocol", [AppProtocol.TCP, AppProtocol.AUTO])
def test_a_server_may_speak_first(rig: Rig, protocol: AppProtocol) -> None:
    with app("127.9.1.1", greet_first) as port:
        rig.simple(protocol, target=port)
        with rig.dial() as sock:
            assert read_exactly(sock, 11) == b"220 ready\r\n"
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert read_exactly(sock, 18) == b"GET / HTTP/1.1\r\n\r\n"


def test_bulk_both_ways(rig: Rig) -> None:
    data = bytes(range(256)) * (8 << 10)
    with app("127.9.1.1", echo) as port:
        rig.simple(AppProtocol.TCP, target=port)
        with rig.dial() as sock:
            got = bytearray()
            sent = 0
            while sent < len(data):
                sent += sock.send(data[sent : sent + 65536])
                got += sock.recv(1 << 20)
            sock.shutdown(socket.SHUT_WR)
            got += read_all(sock)
            assert bytes(got) == data + b"bye"


def test_the_destination_hears_whom_the_waypoint_serves(rig: Rig) -> None:
    with app("127.9.1.1", echo) as port:
        rig.simple(AppProtocol.TCP, target=port)
        with rig.dial() as sock:
            sock.sendall(b"x")
            read_exactly(sock, 1)
    (headers,) = rig.connects
    assert headers["peer"] == str(account("waypoint"))
    assert headers["x-ambit-source-identity"] == str(account("client"))
    assert headers["forwarded"] == 'for="127.0.0.1:40000";host=web.shop.svc.cluster.local'


@pytest.mark.parametrize(
    ("authority", "reason"),
    [
        (f"{VIP}:81", "has no port 81"),
        ("10.96.0.9:80", "neither a service nor a workload"),
        ("127.9.1.1:80", "takes no connections to pod addresses"),
    ],
)
def test_what_is_not_served_here_is_refused(rig: Rig, authority: str, reason: str) -> None:
    rig.simple(AppProtocol.TCP, target=1)
    with rig.dial(authority) as sock:
        assert is_closed(sock)
    (said,) = rig.witness.refusals
    assert reason in said


def test_an_endpoint_that_is_down_closes_the_connection(rig: Rig) -> None:
    rig.simple(AppProtocol.TCP, target=9)
    with rig.dial() as sock:
        assert is_closed(sock)
    assert "503" in rig.witness.streams[0].reason


def test_without_its_gateway_nothing_is_served(rig: Rig) -> None:
    rig.simple(AppProtocol.TCP, target=9)
    rig.call(lambda: rig.core.world.apply_routing({}, [Gateway("shop/waypoint").key]))
    with rig.dial() as sock:
        assert is_closed(sock)


def test_a_policy_change_cuts_the_connections_that_it_denies(rig: Rig) -> None:
    with app("127.9.1.1", echo) as port:
        rig.simple(AppProtocol.TCP, target=port)
        with rig.dial() as denied, rig.dial(who="other") as allowed:
            for sock in (denied, allowed):
                sock.sendall(b"x")
                read_exactly(sock, 1)
            source = Source(principals=("cluster.local/ns/shop/sa/client",))
            rig.policy(HttpPolicy("shop", "no", HttpAction.DENY, (PolicyRule(sources=(source,)),)))
            assert is_closed(denied)
            allowed.sendall(b"y")
            assert read_exactly(allowed, 1) == b"y"
