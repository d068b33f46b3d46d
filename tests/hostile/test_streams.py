"""Streams that share a tunnel: none of them loses a byte, whatever becomes of it and of its neighbours."""

from __future__ import annotations

import hashlib
import random
import selectors
import socket
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.pair import Pair
from tests.worker.node import PATIENCE, in_background, read_exactly, reset

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

KIB, MIB = 1 << 10, 1 << 20
NOISE = random.Random(4).randbytes(8 * MIB)  # no two places of it look alike

# --- one reader stops


def test_a_thousand_streams_of_one_tunnel_do_not_wait_for_one_that_is_not_read(pair: Pair) -> None:
    much = NOISE * 8
    with ExitStack() as undo:
        ends = [[undo.enter_context(end) for end in pair.connect()] for _ in range(1000)]
        (unread, its_sender), *others = ends
        assert pair.held()["pool_tunnels"] == 1
        its_sender.settimeout(None)  # it stalls for as long as the others take
        stalled = in_background(lambda: its_sender.sendall(much))
        pair.client.wait(lambda: pair.held()["pool_held_bytes"] > 0, "bytes to pile up for the one that is not read")
        for turn in range(3):
            in_background(lambda turn=turn: send_all(others, NOISE[turn * 32 * KIB :][: 32 * KIB]))
            for client, _ in others:
                assert read_exactly(client, 32 * KIB) == NOISE[turn * 32 * KIB :][: 32 * KIB]
        assert stalled.is_alive()
        assert hashlib.sha256(read_exactly(unread, len(much))).digest() == hashlib.sha256(much).digest()
    pair.wait_until_idle()


def send_all(ends: Iterable[list[socket.socket]], data: bytes) -> None:
    with suppress(OSError):
        for _, server in ends:
            server.sendall(data)


# --- interleavings


@dataclass
class End:
    """One app's socket, what it said and what it heard."""

    sock: socket.socket
    start: int  # in the noise
    said: int = 0
    heard: bytearray = field(default_factory=bytearray)
    finished: bool = False  # it has sent FIN
    gone: bool = False  # it was reset by its own app
    ended: str = ""  # how what it heard ended: "clean" or "broken"

    def say(self, size: int) -> None:
        if not self.finished and not self.gone:
            try:
                self.said += self.sock.send(NOISE[self.start + self.said :][:size])
            except BlockingIOError:
                pass
            except OSError:  # the kernel tells of a reset once
                self.ended = "broken"

    def hear(self, size: int) -> None:
        if self.gone or self.ended:
            return
        try:
            piece = self.sock.recv(size)
        except BlockingIOError:
            return
        except OSError:
            self.ended = "broken"
            return
        self.heard += piece
        if not piece:
            self.ended = "clean"

    def finish(self) -> None:
        if not self.finished and not self.gone:
            try:
                self.sock.shutdown(socket.SHUT_WR)
                self.finished = True
            except OSError:
                pass  # the other one has reset it

    def abort(self) -> None:
        if not self.gone:
            self.gone = True
            reset(self.sock)


ACTIONS = {
    "say": End.say,
    "hear": End.hear,
    "finish": lambda end, size: end.finish(),
    "abort": lambda end, size: end.abort(),
}
CONNECTIONS = 4
sizes = st.sampled_from([1, 100, 16_375, 70_000, 300_000])
kinds = st.sampled_from(["say"] * 8 + ["hear"] * 6 + ["finish"] * 2 + ["abort"])
steps = st.lists(st.tuples(st.integers(0, CONNECTIONS - 1), st.booleans(), kinds, sizes), min_size=4, max_size=40)


@given(steps=steps)
@settings(max_examples=750, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_byte_is_lost_repeated_or_reordered(pair: Pair, steps: list[tuple[int, bool, str, int]]) -> None:
    """750 examples of four connections each, and every one of those is an interleaving of its own."""
    connections = [both_ends(pair, index) for index in range(CONNECTIONS)]
    try:
        for index, at_client, kind, size in steps:
            ACTIONS[kind](connections[index][0 if at_client else 1], size)
        ends = [end for connection in connections for end in connection]
        for end in ends:
            end.finish()
        hear_the_rest(ends)
        for client, server in connections:
            check(client, server)
            check(server, client)
    finally:
        for connection in connections:
            for end in connection:
                end.sock.close()


def both_ends(pair: Pair, index: int) -> tuple[End, End]:
    client, server = pair.connect()
    for sock in (client, server):
        sock.setblocking(False)
    return End(client, index * 7919), End(server, index * 104_729)


def hear_the_rest(ends: list[End]) -> None:
    with selectors.DefaultSelector() as selector:
        for end in ends:
            if not end.gone and not end.ended:
                selector.register(end.sock, selectors.EVENT_READ, end)
        while selector.get_map():
            ready = selector.select(PATIENCE)
            assert ready, "a connection neither goes on nor ends"
            for key, _ in ready:
                key.data.hear(MIB)
                if key.data.ended:
                    selector.unregister(key.fileobj)


def check(speaker: End, listener: End) -> None:
    said = NOISE[speaker.start :][: speaker.said]
    if listener.gone:
        return
    assert said.startswith(listener.heard)
    if listener.ended == "clean":
        assert speaker.finished, "a clean end that nobody sent"
        assert len(listener.heard) == speaker.said
    else:
        assert speaker.gone, "broken by nobody"


# --- bulk


def test_a_gigabyte_in_both_directions_at_once(pair: Pair) -> None:
    exchange(pair, 512 * MIB)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_gigabytes_each_way_at_once(pair: Pair) -> None:
    exchange(pair, 10_000_000_000)


def exchange(pair: Pair, size: int) -> None:
    client, server = pair.connect()
    with client, server:
        for sock, seed in ((client, 1), (server, 2)):
            in_background(lambda sock=sock, seed=seed: send_noise(sock, seed, size))  # type: ignore[misc]
        digests: dict[int, str] = {}
        readers = [
            in_background(lambda sock=sock, seed=seed: digests.update({seed: digest(sock)}))  # type: ignore[misc]
            for sock, seed in ((server, 1), (client, 2))
        ]
        for reader in readers:
            reader.join()
    assert digests == {seed: expected(seed, size) for seed in (1, 2)}


def chunks(seed: int, size: int) -> Iterable[memoryview]:
    """Noise from another place each time."""
    chance, noise = random.Random(seed), memoryview(NOISE)
    while size:
        start = chance.randrange(len(NOISE) - MIB)
        piece = noise[start : start + min(size, MIB - chance.randrange(1000))]
        yield piece
        size -= len(piece)


def send_noise(sock: socket.socket, seed: int, size: int) -> None:
    for piece in chunks(seed, size):
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)


def expected(seed: int, size: int) -> str:
    total = hashlib.sha256()
    for piece in chunks(seed, size):
        total.update(piece)
    return total.hexdigest()


def digest(sock: socket.socket) -> str:
    total, room = hashlib.sha256(), bytearray(MIB)
    while size := sock.recv_into(room):
        total.update(memoryview(room)[:size])
    return total.hexdigest()
