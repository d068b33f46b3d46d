"""After twenty thousand connections that ended in every way there is, workers and kernel hold what they held before."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hostile.arena import MIB, resident
from tests.hostile.pair import Pair
from tests.worker.captured import CapturedNode, new_captured_node
from tests.worker.node import PATIENCE, read_all, reset, serving

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

CONNECTIONS = 20_000
WARM_UP = 2000
THREADS = 16
MOST_GROWTH = 8 * MIB  # of a worker's memory, for the allocator's own sake: a byte a connection would be far less
FACTORY = threading.Lock()  # of sockets in the pod: it makes one at a time
NOBODY, RESETS, ECHOES, SILENT = 8101, 8102, 8103, 8104


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CapturedNode]:
    with new_captured_node(Path(tmp_path_factory.mktemp("unused"))) as node:
        yield node


@pytest.fixture
def pair(captured: CapturedNode) -> Iterator[Pair]:
    """With the real capture below, so that what the kernel's maps hold is seen too."""
    pair = Pair(captured)
    serving(captured.b.listen(RESETS), lambda sock: reset(sock) if sock.recv(1) else None)
    serving(captured.b.listen(ECHOES), echo_and_end)
    serving(captured.b.listen(SILENT), lambda sock: sock.recv(1) and time.sleep(0.001))
    try:
        yield pair
    finally:
        pair.close()


def echo_and_end(sock: socket.socket) -> None:
    while data := sock.recv(1 << 16):
        sock.sendall(data)


# --- endings: each gets a socket that is connected to the port that its name is listed with


def politely(app: socket.socket) -> None:
    app.sendall(b"x" * 1000)
    app.shutdown(socket.SHUT_WR)
    assert read_all(app) == b"x" * 1000


def without_a_word(app: socket.socket) -> None:
    app.close()


def in_the_middle(app: socket.socket) -> None:
    app.sendall(b"x" * 20_000)
    app.recv(1)
    app.close()  # with something unread: a reset


def by_reset(app: socket.socket) -> None:
    app.sendall(b"x")
    reset(app)


def by_the_server(app: socket.socket) -> None:
    app.sendall(b"x")
    read_all(app)


ENDINGS: list[tuple[int, Callable[[socket.socket], None]]] = [
    (ECHOES, politely),
    (ECHOES, politely),
    (ECHOES, without_a_word),
    (ECHOES, in_the_middle),
    (ECHOES, by_reset),
    (SILENT, by_reset),
    (SILENT, by_the_server),
    (RESETS, by_the_server),
    (RESETS, without_a_word),
    (NOBODY, by_the_server),
]


def test_mixed_endings_leave_nothing(pair: Pair, captured: CapturedNode) -> None:
    run(pair, WARM_UP)
    before = rest(pair, captured)
    memory = [resident(worker.process.pid) for worker in (pair.client, pair.server)]
    run(pair, CONNECTIONS)
    assert rest(pair, captured) == before
    after = [resident(worker.process.pid) for worker in (pair.client, pair.server)]
    growth = [late - early for late, early in zip(after, memory, strict=True)]
    print(f"memory grew by {[size >> 10 for size in growth]} KiB over {CONNECTIONS} connections")
    assert max(growth) <= MOST_GROWTH


def run(pair: Pair, count: int) -> None:
    chance = random.Random(count)
    choices = [chance.choice(ENDINGS) for _ in range(count)]
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda choice: one(pair, *choice), choices, chunksize=100))


def one(pair: Pair, port: int, end: Callable[[socket.socket], None]) -> None:
    with FACTORY:
        app = pair.node.a.socket()
    with contextlib.suppress(OSError), app:
        app.connect((pair.node.b.ip4, port))
        end(app)


def rest(pair: Pair, captured: CapturedNode) -> tuple[dict[str, int], list[tuple[int, int]], dict[str, int]]:
    """Counters, descriptors and registrations, map entries: once nothing is under way any more."""
    assert captured.capture is not None
    deadline = time.monotonic() + PATIENCE
    while True:
        pair.wait_until_idle()
        counts = captured.capture.counts()
        now = pair.held(), pair.open_files(), counts
        time.sleep(0.3)
        if now == (pair.held(), pair.open_files(), captured.capture.counts()) or time.monotonic() > deadline:
            return without_tunnels(*now)


def without_tunnels(
    held: dict[str, int], files: list[tuple[int, int]], maps: dict[str, int]
) -> tuple[dict[str, int], list[tuple[int, int]], dict[str, int]]:
    """A pooled tunnel more or less is no leak; it has one descriptor at each end."""
    tunnels = held["pool_tunnels"]
    kept = {name: value for name, value in held.items() if "tunnels" not in name}
    return kept, [(opened - tunnels, watched - tunnels) for opened, watched in files], maps
