"""Windows: how large, who grows, and what a slow reader can hold."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.hbone import Budget, ErrorCode, Limits
from mesh.hbone.windows import BULK_BYTES_PER_TURN, grown
from tests.hbone import wire
from tests.hbone.ends import Pair, drain, feed, send

MIB = 1 << 20


def pump(pair: Pair, stream: int, total: int, chunk: int, reader_keeps_up: bool = True) -> int:
    """Client to server until `total` bytes are there or no more can be sent; the bytes that arrived."""
    arrived = 0
    while arrived < total:
        size = send(pair.client, stream, bytes(chunk))
        pair.exchange()
        got = len(pair.at_server.bytes.pop(stream, b""))
        pair.at_server.take()
        arrived += got
        if reader_keeps_up and got:
            pair.server.acknowledge(stream, got)
            pair.exchange()
        elif not size:
            break
    return arrived


def in_flight(pair: Pair, stream: int) -> int:
    """How much the client may send on a stream while nobody reads."""
    return pump(pair, stream, 1 << 40, 1 << 20, reader_keeps_up=False)


def tunnel_pair(server: Limits | None = None) -> tuple[Pair, int]:
    pair = Pair(server=server)
    pair.exchange()
    return pair, pair.tunnel()


def test_a_slow_reader_holds_its_first_window_and_stops_itself_alone() -> None:
    pair, slow = tunnel_pair()
    assert in_flight(pair, slow) == 64 << 10
    assert pair.client.starved(slow)
    fast = pair.tunnel()
    assert pump(pair, fast, 40 * MIB, 1 << 18) >= 40 * MIB


def test_bulk_with_a_quick_reader_grows_to_the_limit() -> None:
    pair, stream = tunnel_pair()
    pump(pair, stream, 16 * MIB, 1 << 18)
    assert 3 * MIB <= in_flight(pair, stream) <= 4 * MIB


def test_a_conversation_does_not_grow() -> None:
    pair, stream = tunnel_pair()
    pump(pair, stream, 2 * MIB, 512)
    assert in_flight(pair, stream) <= 64 << 10


def test_all_windows_together_grow_by_one_connection_window() -> None:
    pair, first = tunnel_pair()
    streams = [first] + [pair.tunnel() for _ in range(20)]
    for stream in streams:
        pump(pair, stream, 16 * MIB, 1 << 18)
    assert sum(in_flight(pair, stream) for stream in streams) <= 16 * MIB + 21 * (64 << 10)


def test_connections_that_share_a_budget_grow_by_no_more_together() -> None:
    budget = Budget(4 * MIB)
    pairs = [Pair(server_budget=budget) for _ in range(3)]
    for pair in pairs:
        pair.exchange()
        pump(pair, pair.tunnel(), 16 * MIB, 1 << 18)
    assert budget.left < 64 << 10
    assert sum(in_flight(pair, 1) for pair in pairs) <= 4 * MIB + 3 * (64 << 10)
    for pair in pairs:
        pair.server.release()
    assert budget.left == 4 * MIB


def test_closed_streams_return_their_growth() -> None:
    pair, stream = tunnel_pair()
    for _ in range(30):
        pump(pair, stream, 16 * MIB, 1 << 18)
        pair.client.end(stream)
        pair.server.end(stream)
        pair.exchange()
        stream = pair.tunnel()
    pump(pair, stream, 16 * MIB, 1 << 18)
    assert in_flight(pair, stream) >= 3 * MIB


def test_connection_credit_returns_whatever_becomes_of_the_stream() -> None:
    """DATA for streams that were reset, over many times the connection's window."""
    pair = Pair(server=Limits(connection_window=1 << 17))
    pair.exchange()
    for _ in range(40):
        stream = pair.tunnel()
        assert send(pair.client, stream, bytes(60_000)) == 60_000
        late = drain(pair.client)
        pair.server.reset(stream, ErrorCode.CANCEL)
        feed(pair.server, late)
        feed(pair.client, drain(pair.server))
        pair.exchange()
    assert pair.at_server.bytes == {}


def test_credit_returns_in_large_steps() -> None:
    pair, stream = tunnel_pair()
    updates = 0
    for _ in range(8 * MIB // 4096):
        send(pair.client, stream, bytes(4096))
        feed(pair.server, drain(pair.client))
        pair.at_server.take()
        pair.server.acknowledge(stream, 4096)
        answer = drain(pair.server)
        updates += sum(frame.kind == wire.UPDATE for frame in wire.read(answer))
        feed(pair.client, answer)
    assert 2 <= updates <= 2 + 8 * MIB // (64 << 10)


def test_padding_is_credited_at_once() -> None:
    pair, stream = tunnel_pair(Limits(initial_window=65535))
    frame = wire.raw(wire.DATA, wire.PADDED, stream, b"\xff" + b"x" + bytes(255))
    feed(pair.server, frame * 200)
    credit = sum(
        struct.unpack(">I", sent.payload)[0]
        for sent in wire.read(drain(pair.server))
        if sent.kind == wire.UPDATE and sent.stream == stream
    )
    assert credit >= 200 * 256 - 65535 // 4


@pytest.mark.parametrize("limits", [{"initial_window": 65534}, {"connection_window": 1}, {"max_frame": 16383}])
def test_limits_below_the_protocols_own_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"size|window"):
        Limits(**limits)


@given(window=st.integers(1, 1 << 24), unread=st.integers(0, 1 << 24), taken=st.integers(0, 1 << 24),
       turns=st.integers(0, 5000), most=st.integers(1, 1 << 24))  # fmt: skip
def test_growth(window: int, unread: int, taken: int, turns: int, most: int) -> None:
    size = grown(window, unread, taken, turns, most)
    assert window <= size <= max(window, min(2 * window, most))
    if unread > window // 4 or taken < turns * BULK_BYTES_PER_TURN:
        assert size == window
