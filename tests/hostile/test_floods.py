"""Frames that are cheap to send, at the real port: each flood ends its own connection, and nobody else notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice

import hpack
import pytest

from tests.hbone import wire
from tests.hostile.arena import Arena
from tests.hostile.attacker import CLOSED, OPENING, Attacker

pytestmark = pytest.mark.root

PROTOCOL_ERROR, FLOW_CONTROL, STREAM_CLOSED, FRAME_SIZE, COMPRESSION, CALM = 1, 3, 5, 6, 9, 11
MOST_MIB = 8.0  # by which one hostile connection may make the worker grow
MOST_FRAMES = 60_000
BATCH = 50

Flood = Callable[[int, str], bytes]


def request(n: int, authority: str) -> bytes:
    return wire.headers(2 * n + 3, [(":method", "CONNECT"), (":authority", authority)])


# name: (the nth unit, the code of the GOAWAY that has to come)
FLOODS: dict[str, tuple[Flood, int]] = {
    "rapid reset": (lambda n, to: request(n, to) + wire.rst(2 * n + 3), CALM),
    "made to reset": (lambda n, to: request(n, to) + wire.update(2 * n + 3, 0), CALM),
    "malformed requests": (lambda n, to: wire.headers(2 * n + 3, wire.OK), CALM),
    "settings": (lambda n, to: wire.settings((4, 70_000 + n)), CALM),
    "settings acknowledgements": (lambda n, to: wire.raw(wire.SETTINGS, wire.ACK), CALM),
    "pings": (lambda n, to: wire.raw(wire.PING, 0, 0, bytes(8)), CALM),
    "ping acknowledgements": (lambda n, to: wire.raw(wire.PING, wire.ACK, 0, bytes(8)), CALM),
    "empty data": (lambda n, to: wire.raw(wire.DATA, 0, 1), CALM),
    "nothing but padding": (lambda n, to: wire.raw(wire.DATA, wire.PADDED, 1, b"\x00"), CALM),
    "priorities": (lambda n, to: wire.raw(wire.PRIORITY, 0, 2 * n + 1, bytes(5)), CALM),
    "window updates": (lambda n, to: wire.update(0, 1), CALM),
    "window updates of a stream": (lambda n, to: wire.update(1, 1), CALM),
    "unknown frames": (lambda n, to: wire.raw(99, 0, 0), CALM),
    "resets of a stream that is gone": (lambda n, to: wire.rst(1), CALM),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_its_connection(arena: Arena, name: str) -> None:
    unit, code = FLOODS[name]
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)]))
        attacker.pour(batches(unit, arena.authority))
        assert attacker.ending() == code
        attacker.close()


def batches(unit: Flood, authority: str) -> Iterator[bytes]:
    for start in range(0, MOST_FRAMES, BATCH):
        yield b"".join(unit(n, authority) for n in range(start, start + BATCH))


# --- header blocks


def test_a_continuation_flood_ends_its_connection(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.raw(wire.HEADERS, 0, 1, wire.literals((b"x", b"y"))))
        attacker.pour(wire.raw(wire.CONTINUATION, 0, 1, b"\x00\x01x\x01y") for _ in range(MOST_FRAMES))
        assert attacker.ending() == CALM
        attacker.close()


def test_empty_continuations_end_their_connection(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.raw(wire.HEADERS, 0, 1))
        attacker.pour(wire.raw(wire.CONTINUATION, 0, 1) for _ in range(MOST_FRAMES))
        assert attacker.ending() == CALM
        attacker.close()


def test_a_header_bomb_costs_its_connection(arena: Arena) -> None:
    """A block of 16 kB that would unfold to 64 MB: one long field in the table, and then only its index."""
    bomb = hpack.Encoder().encode([(b"x", bytes(4000))], huffman=False) + b"\xbe" * 16_000
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.raw(wire.HEADERS, wire.END_HEADERS, 1, bomb))
        assert attacker.ending() == CALM
        attacker.close()


def test_a_header_list_that_is_a_little_too_long_costs_its_stream(arena: Arena) -> None:
    fields = [(b":method", b"CONNECT"), (b":authority", b"a:1"), *((b"x%03d" % n, b"y" * 30) for n in range(1000))]
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.raw(wire.HEADERS, wire.END_HEADERS, 1, wire.literals(*fields)))
        assert attacker.wait_for(wire.RST, 1).payload == bytes((0, 0, 0, PROTOCOL_ERROR))
        assert attacker.lives()
        attacker.close()


def test_a_block_larger_than_the_list_may_be_is_not_even_received(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.raw(wire.HEADERS, wire.END_HEADERS, 1, bytes(200_000)))
        assert attacker.ending() == CALM
        attacker.close()


def test_many_different_tables_fill_no_memory(arena: Arena) -> None:
    """Each request puts new entries into the table, or a new block into the cache of blocks."""
    encoder = hpack.Encoder()
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        for n in range(600):
            fields = [(":method", "CONNECT"), (":authority", "nowhere:1"), ("x", f"{n:03}" * 500)]
            block = (
                encoder.encode(fields, huffman=False)
                if n & 1
                else wire.literals(
                    (b":method", b"CONNECT"),
                    (b":authority", b"nowhere:1"),
                    *((b"y", b"%05d" % n * 20) for _ in range(40)),
                )
            )
            attacker.pour([wire.raw(wire.HEADERS, wire.END_HEADERS, 2 * n + 1, block)])
        assert attacker.lives()
        attacker.close()


def test_a_broken_table_costs_the_connection(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.raw(wire.HEADERS, wire.END_HEADERS, 1, b"\xff\xff\xff\xff\x7f"))
        assert attacker.ending() == COMPRESSION
        attacker.close()


# --- windows, sizes, numbers


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (wire.update(0, 0), PROTOCOL_ERROR),
        (wire.update(0, 0x7FFFFFFF), FLOW_CONTROL),
        (wire.settings((4, 0x80000000)), FLOW_CONTROL),
        (wire.settings((5, 16383)), PROTOCOL_ERROR),
        (wire.settings((5, 1 << 24)), PROTOCOL_ERROR),
        (wire.settings(*((99, n) for n in range(100))), CALM),
        (wire.raw(wire.DATA, 0, 1, b"", length=(1 << 20) + 1), FRAME_SIZE),
        (wire.raw(wire.PING, 0, 0, bytes(7)), FRAME_SIZE),
        (wire.raw(wire.SETTINGS, 0, 0, bytes(5)), FRAME_SIZE),
        (wire.raw(wire.SETTINGS, 0, 1), PROTOCOL_ERROR),
        (wire.raw(wire.SETTINGS, wire.ACK, 0, bytes(6)), FRAME_SIZE),
        (wire.raw(wire.DATA, wire.PADDED, 1, b"\xff\x00"), PROTOCOL_ERROR),
        (wire.raw(wire.DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (wire.raw(wire.DATA, 0, 3, b"x"), PROTOCOL_ERROR),
        (wire.raw(wire.CONTINUATION, wire.END_HEADERS, 1), PROTOCOL_ERROR),
        (wire.raw(wire.PUSH, wire.END_HEADERS, 1, bytes(4)), PROTOCOL_ERROR),
        (wire.raw(wire.HEADERS, wire.END_HEADERS, 2, wire.block(wire.CONNECT)), PROTOCOL_ERROR),
        (wire.raw(wire.HEADERS, 0, 3, b"") + wire.raw(wire.PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
        (wire.rst(7), PROTOCOL_ERROR),
        (wire.update(7, 1), PROTOCOL_ERROR),
        (wire.raw(wire.GOAWAY, 0, 0, bytes(4)), FRAME_SIZE),
    ],
)
def test_what_breaks_the_connection_is_named(arena: Arena, frames: bytes, code: int) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)]))
        attacker.wait_for(wire.HEADERS, 1)
        attacker.send(frames)
        assert attacker.ending() == code
        attacker.close()


def test_who_is_still_sending_is_told_all_the_same(arena: Arena) -> None:
    """What it sends meanwhile is dropped: to answer it with RST would take the reason away from it."""
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.sock.sendall(wire.rst(7) + bytes(1 << 20))
        attacker.wait_for(wire.GOAWAY)
        attacker.sock.sendall(bytes(1 << 20))
        assert attacker.ending() == PROTOCOL_ERROR
        attacker.close()


def test_who_never_ends_after_its_end_is_cut(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.rst(7))
        assert attacker.ending() == PROTOCOL_ERROR
        arena.settle()  # our end is still open


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (wire.update(1, 0), PROTOCOL_ERROR),
        (wire.update(1, 0x7FFFFFFF), FLOW_CONTROL),
        (wire.headers(1, [("x", "y")]), PROTOCOL_ERROR),
        (wire.raw(wire.DATA, 1, 1) + wire.raw(wire.DATA, 0, 1, b"x"), STREAM_CLOSED),
    ],
)
def test_what_breaks_a_stream_leaves_the_connection(arena: Arena, frames: bytes, code: int) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)]))
        attacker.wait_for(wire.HEADERS, 1)
        attacker.send(frames)
        assert attacker.wait_for(wire.RST, 1).payload == bytes((0, 0, 0, code))
        assert attacker.lives()
        attacker.close()


def test_more_data_than_the_window_is_refused(arena: Arena) -> None:
    """To an app that does not read: credit never comes back."""
    listener = arena.node.b.listen(8081)
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", f"{arena.node.b.ip4}:8081")]))
        attacker.wait_for(wire.HEADERS, 1)
        attacker.pour(islice((wire.raw(wire.DATA, 0, 1, bytes(16_000)) for _ in count()), 1000))
        assert attacker.wait_for(wire.RST, 1).payload == bytes((0, 0, 0, FLOW_CONTROL))
        attacker.close()
        listener.close()


def test_the_last_stream_number_may_be_used_and_none_after_it(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        last = (1 << 31) - 1
        attacker.send(wire.headers(last, [(":method", "CONNECT"), (":authority", arena.authority)]))
        assert attacker.wait_for(wire.HEADERS, last).payload[:1] == b"\x88"
        attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)]))
        assert attacker.ending() == PROTOCOL_ERROR
        attacker.close()


def test_more_streams_than_granted_are_refused(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        connect = [(":method", "CONNECT"), (":authority", arena.authority)]
        attacker.pour(wire.headers(2 * n + 1, connect) for n in range(300))
        refused = attacker.wait_for(wire.RST)
        assert refused.stream >= 401
        assert refused.payload == bytes((0, 0, 0, 7))
        assert attacker.lives()
        attacker.close()


# --- reading slowly or not at all


def test_one_byte_at_a_time_is_understood(arena: Arena) -> None:
    """In TLS records of one byte each: whole frames come together from them."""
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena, b"")
        connect = wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)])
        for byte in OPENING + connect + wire.raw(wire.DATA, 0, 1, b"letters") + wire.raw(wire.DATA, 1, 1):
            attacker.send(bytes((byte,)))
        answer = b""
        while answer != b"letters":
            answer = b"".join(f.payload for f in attacker.frames() if f.kind == wire.DATA)
            attacker.wait_for(wire.HEADERS, 1)
            attacker.send(b"")
            attacker.read_what_came()
        attacker.close()


def test_frames_of_one_byte_are_carried(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)]))
        attacker.wait_for(wire.HEADERS, 1)
        text = bytes(n & 0xFF for n in range(20_000))
        for start in range(0, len(text), 500):
            attacker.pour([b"".join(wire.raw(wire.DATA, 0, 1, text[n : n + 1]) for n in range(start, start + 500))])
        attacker.send(wire.raw(wire.DATA, 1, 1))
        while not any(f.kind == wire.DATA and f.flags & 1 for f in attacker.frames()):
            attacker._read()
        assert b"".join(f.payload for f in attacker.frames() if f.kind == wire.DATA) == text
        attacker.close()


@pytest.mark.parametrize("what", ["requests", "pings"])
def test_who_sends_and_never_reads_is_cut(arena: Arena, what: str) -> None:
    """Answers pile up in the kernel and then in the staging buffer, which is bounded."""
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        units = {
            "requests": lambda n: wire.headers(2 * n + 1, [(":method", "CONNECT"), (":authority", "nowhere")]),
            "pings": lambda n: wire.raw(wire.PING, 0, 0, bytes(8)),
        }
        for n in range(2_000_000):
            attacker.send(b"".join(units[what](n * 100 + k) for k in range(100)))
            if attacker.closed:
                break
        assert attacker.closed
        assert attacker.ending() in (CALM, CLOSED)
        attacker.close()
