"""Peers that keep to the letter of the protocol and try to wear this end down."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh.hbone import Connection, ConnectionFailed, ErrorCode, FloodLimits, Limits, Role
from tests.hbone import wire
from tests.hbone.ends import Pair, Recorder, drain, feed, send

TUNNEL = wire.PREFACE + wire.settings() + wire.raw(wire.SETTINGS, wire.ACK) + wire.headers(1, wire.CONNECT)

# Each makes the nth unit of a flood.
FLOODS: dict[str, Callable[[int], bytes]] = {
    "rapid reset": lambda n: wire.headers(2 * n + 3, wire.CONNECT) + wire.rst(2 * n + 3),
    "made to reset": lambda n: wire.headers(2 * n + 3, wire.CONNECT) + wire.update(2 * n + 3, 0),
    "malformed requests": lambda n: wire.headers(2 * n + 3, wire.OK),
    "settings": lambda n: wire.settings((4, 70_000 + n)),
    "acknowledgements": lambda n: wire.raw(wire.SETTINGS, wire.ACK),
    "pings": lambda n: wire.raw(wire.PING, 0, 0, bytes(8)),
    "pongs": lambda n: wire.raw(wire.PING, wire.ACK, 0, bytes(8)),
    "empty data": lambda n: wire.raw(wire.DATA, 0, 1),
    "empty data on a stream that is gone": lambda n: wire.rst(1) + wire.raw(wire.DATA, 0, 1),
    "nothing but padding": lambda n: wire.raw(wire.DATA, wire.PADDED, 1, b"\x00"),
    "priorities": lambda n: wire.raw(wire.PRIORITY, 0, 2 * n + 1, bytes(5)),
    "window updates": lambda n: wire.update(0, 1),
    "window updates of a stream": lambda n: wire.update(1, 1),
    "unknown frames": lambda n: wire.raw(99, 0, 0),
    "resets of a stream that is gone": lambda n: wire.rst(1),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood_ends_the_connection(name: str) -> None:
    connection = Connection(Role.SERVER, Recorder())
    feed(connection, TUNNEL)
    with pytest.raises(ConnectionFailed) as raised:
        flood(connection, FLOODS[name])
    assert raised.value.code is ErrorCode.ENHANCE_YOUR_CALM


def flood(connection: Connection, unit: Callable[[int], bytes]) -> None:
    for n in range(20_000):
        drain(connection)
        feed(connection, unit(n))


@pytest.mark.parametrize("name", FLOODS)
def test_the_same_frames_over_a_day_are_no_flood(name: str) -> None:
    connection = Connection(Role.SERVER, Recorder())
    feed(connection, TUNNEL)
    for n in range(3000):
        feed(connection, FLOODS[name](n))
        if n % 50 == 0:
            connection.ping(bytes(8))
        drain(connection)


def test_a_busy_tunnel_is_no_flood() -> None:
    """Thousands of short streams and of small updates for bytes that were sent, between two keepalives."""
    pair = Pair()
    for _ in range(3000):
        stream = pair.tunnel()
        send(pair.client, stream, bytes(100), end=True)
        send(pair.server, stream, bytes(100), end=True)
        pair.exchange()
    assert pair.client.open_streams == pair.server.open_streams == 0


def test_apps_that_give_up_are_no_flood_beside_those_that_do_not() -> None:
    pair = Pair()
    for _ in range(3000):
        stream = pair.tunnel()
        for end in (pair.client, pair.server):
            end.end(stream)
        gives_up = pair.client.open("10.0.0.1:80")
        pair.exchange()
        pair.client.reset(gives_up, ErrorCode.CANCEL)
        pair.exchange()
    assert pair.server.failure is None


def test_small_updates_for_sent_bytes_are_no_flood() -> None:
    connection = Connection(Role.SERVER, Recorder())
    feed(connection, TUNNEL)
    connection.respond(1, 200)
    for _ in range(5000):
        assert send(connection, 1, bytes(1024)) == 1024
        drain(connection)
        feed(connection, wire.update(0, 1024) + wire.update(1, 1024))


@pytest.mark.parametrize("name", ["pings", "settings", "requests"])
def test_who_asks_and_does_not_read_is_cut_off(name: str) -> None:
    """Memory stays bounded even where the flood limits are generous."""
    floods = FloodLimits(settings=1 << 30, pings=1 << 30)
    connection = Connection(Role.SERVER, Recorder(), Limits(staging=1 << 16, control_room=1 << 14, floods=floods))
    feed(connection, TUNNEL)
    with pytest.raises(ConnectionFailed, match="does not read") as raised:
        ask(connection, FLOODS.get(name, lambda n: wire.headers(2 * n + 3, wire.CONNECT)))
    assert raised.value.code is ErrorCode.ENHANCE_YOUR_CALM
    assert connection.staged < (1 << 16) + (1 << 14) + 17_000
    assert list(wire.read(drain(connection)))[-1].kind == wire.GOAWAY


def ask(connection: Connection, unit: Callable[[int], bytes]) -> None:
    for n in range(20_000):
        feed(connection, unit(n))
        connection.respond(2 * n + 3, 503, [("x", "y" * 1000)], end=True)


def test_data_never_takes_the_room_of_control_frames() -> None:
    pair = Pair(server=Limits(staging=1 << 16))
    pair.exchange()
    stream = pair.tunnel()
    while send(pair.server, stream, bytes(100_000)):
        pass
    assert not pair.server.starved(stream)
    for _ in range(100):
        feed(pair.server, wire.raw(wire.PING, 0, 0, bytes(8)))
    kinds = [frame.kind for frame in wire.read(drain(pair.server))]
    assert kinds.count(wire.PING) == 100
    assert pair.server.reserve(stream) is not None, "room again once it is written out"


# --- deadlines, which the keepalives count


def test_settings_that_are_never_acknowledged_end_the_connection() -> None:
    connection = Connection(Role.SERVER, Recorder())
    feed(connection, wire.PREFACE + wire.settings())
    connection.ping(bytes(8))
    assert connection.failure is None
    connection.ping(bytes(8))
    assert connection.failure is not None
    assert connection.failure.code is ErrorCode.SETTINGS_TIMEOUT
    assert list(wire.read(drain(connection)))[-1].kind == wire.GOAWAY


UNFINISHED = {
    "a header block": wire.raw(wire.HEADERS, 0, 3, b"") + wire.raw(wire.CONTINUATION, 0, 3, b""),
    "a frame": wire.headers(3, wire.CONNECT)[:-1],
}


@pytest.mark.parametrize("name", UNFINISHED)
def test_what_does_not_end_for_a_whole_period_ends_the_connection(name: str) -> None:
    connection = Connection(Role.SERVER, Recorder())
    feed(connection, TUNNEL + UNFINISHED[name])
    connection.ping(bytes(8))
    assert connection.failure is None
    if name == "a header block":  # a drop now and then is no excuse
        feed(connection, wire.raw(wire.CONTINUATION, 0, 3, b""))
    connection.ping(bytes(8))
    assert connection.failure is not None
    assert connection.failure.code is ErrorCode.ENHANCE_YOUR_CALM


def test_data_may_come_as_slowly_as_it_likes() -> None:
    connection = Connection(Role.SERVER, Recorder())
    feed(connection, TUNNEL + wire.raw(wire.DATA, 0, 1, b"", length=1000))
    for _ in range(10):
        connection.ping(bytes(8))
        feed(connection, b"x")
    assert connection.failure is None
