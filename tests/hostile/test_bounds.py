"""What a worker may cost at most: its memory when nobody reads, and its descriptors when there are none left."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.hostile.arena import MIB, resident
from tests.hostile.pair import Pair
from tests.worker.node import PATIENCE, Node, in_background, read_exactly

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

CONNECTIONS = 5000
# Stated in docs/performance.md. Each connection that is not read holds its first window (64 KiB) at most in the
# client's worker; the server's worker holds nothing for it, since it reads its app only as far as credit goes.
MOST_CLIENT_MIB = 340
MOST_SERVER_MIB = 160
STILL_READ = 8 * MIB  # under way to those that do read


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Both ends of all connections are in this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4 * CONNECTIONS, max(before[1], 4 * CONNECTIONS)))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def pair(hostile_node: Node) -> Iterator[Pair]:
    """With the limits that users have."""
    pair = Pair(hostile_node)
    try:
        yield pair
    finally:
        pair.close()


@pytest.mark.usefixtures("descriptors")
def test_memory_when_half_of_five_thousand_never_read(pair: Pair) -> None:
    base = [resident(worker.process.pid) for worker in (pair.client, pair.server)]
    with contextlib.ExitStack() as undo:
        ends = [[undo.enter_context(end) for end in pair.connect()] for _ in range(CONNECTIONS)]
        idle = [resident(worker.process.pid) for worker in (pair.client, pair.server)]
        stop = threading.Event()
        talk = [
            in_background(lambda: keep_sending([server for _, server in ends], stop)),
            in_background(lambda: keep_reading([client for client, _ in ends[::2]], stop)),
        ]
        held = until_it_rises_no_more(pair)
        full = [resident(worker.process.pid) for worker in (pair.client, pair.server)]
        stop.set()
        for thread in talk:
            thread.join()
        for client, _ in ends[::2]:
            client.settimeout(PATIENCE)
            assert read_exactly(client, 4096)
        kib = [(after - before) / CONNECTIONS / 1024 for after, before in zip(idle, base, strict=True)]
        mib = [size / MIB for size in full]
        print(
            f"an idle connection: {kib} KiB; at the end: {mib} MiB, of which {held['pool_held_bytes']} bytes are held"
        )
        assert 0 < held["pool_held_bytes"] <= CONNECTIONS // 2 * (64 << 10) + (64 << 20) + STILL_READ
        assert full[0] <= MOST_CLIENT_MIB * MIB
        assert full[1] <= MOST_SERVER_MIB * MIB
    pair.wait_until_idle()


def keep_sending(servers: list[socket.socket], stop: threading.Event) -> None:
    """As much as each takes, again and again; a little to those that read it."""
    little, much = bytes(1 << 10), bytes(256 << 10)
    for server in servers:
        server.setblocking(False)
    while not stop.is_set():
        for index, server in enumerate(servers):
            with contextlib.suppress(OSError):
                server.send(much if index & 1 else little)
        time.sleep(0.01)
    for server in servers[::2]:
        server.settimeout(PATIENCE)
        server.sendall(bytes(4096))


def keep_reading(clients: list[socket.socket], stop: threading.Event) -> None:
    with selectors.EpollSelector() as selector:
        for client in clients:
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ)
        while not stop.is_set():
            for key, _ in selector.select(0.05):
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.recv(1 << 16)  # type: ignore[union-attr]


def until_it_rises_no_more(pair: Pair) -> dict[str, int]:
    deadline = time.monotonic() + 3 * PATIENCE
    before = 0
    while True:
        held = pair.held()
        if before and held["pool_held_bytes"] - before <= before // 100:
            return held
        assert time.monotonic() < deadline, "what is held goes on rising"
        before = held["pool_held_bytes"]
        time.sleep(1)


def test_without_files_the_server_waits_and_goes_on(pair: Pair) -> None:
    """Neither tunnels nor apps can be opened for a while; what stands stands, and later all is as before."""
    first = pair.connect()
    pid = pair.server.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (before[0], before[1]))
    start = pair.server.describe().counters["accept_pauses"]
    limit = pair.open_files()[1][0] + 10
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    apps = []
    with contextlib.suppress(OSError, AssertionError):
        for _ in range(60):
            sock = pair.node.a.dial(pair.node.b.address(8090))
            apps.append(sock)
    raw = [pair.node.a.dial_plainly(pair.node.b.address(15008)) for _ in range(40)]
    pair.server.wait(lambda: pair.server.describe().counters["accept_pauses"] > start, "accepting to pause")
    first[0].sendall(b"still")
    assert read_exactly(first[1], 5) == b"still"
    for sock in apps + raw:
        sock.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    client, server = pair.connect()
    client.sendall(b"again")
    assert read_exactly(server, 5) == b"again"
    for end in (client, server, *first):
        end.close()
    pair.wait_until_idle()


def test_every_queue_has_a_gauge(pair: Pair) -> None:
    expected = {
        "connections",
        "connections_waiting_for_agent",
        "pool_waiting",
        "pool_held_bytes",
        "inbound_handshakes",
        "inbound_held_bytes",
        "inbound_tunnels",
        "inbound_tunnels_refused",
        "accept_pauses",
        "records_dropped",
    }
    assert expected <= pair.server.describe().counters.keys()
