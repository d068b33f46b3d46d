"""Connections between two enrolled pods, through the tunnel of two workers, as their apps see them."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time

import pytest

from tests.worker.node import (
    V4,
    V6,
    Node,
    Pod,
    echo,
    in_background,
    is_reset,
    read_all,
    read_exactly,
    reset,
    serving,
)
from tests.worker.node import Worker as WorkerProcess

pytestmark = pytest.mark.root

SIZE = 64 << 20
PORT = 8080


@pytest.fixture
def pair(node: Node) -> tuple[WorkerProcess, WorkerProcess]:
    """A worker for each pod."""
    return node.worker(node.a), node.worker(node.b)


@pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
def test_what_is_said_comes_back(node: Node, pair: tuple[WorkerProcess, WorkerProcess], family: int) -> None:
    serving(node.b.listen(PORT, family), echo)
    with node.a.dial(node.b.address(PORT, family)) as app:
        app.sendall(b"hello")
        assert app.recv(100) == b"hello"
        app.shutdown(socket.SHUT_WR)
        assert read_all(app) == b""
    client, server = pair[0].ended(), pair[1].ended()
    assert (client.protocol, client.sent, client.received, client.error) == ("HBONE", 5, 5, "")
    assert (server.protocol, server.sent, server.received, server.error) == ("HBONE", 5, 5, "")
    assert client.destination_identity == server.destination_identity == node.b.identity
    assert client.source_identity == server.source_identity == node.a.identity
    assert server.source.ip == node.a.ip(family)
    assert server.destination == node.b.address(PORT, family)


def test_a_server_that_speaks_first_is_heard(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    serving(node.b.listen(PORT), lambda sock: sock.sendall(b"220 welcome"))
    with node.a.dial(node.b.address(PORT)) as app:
        assert read_all(app) == b"220 welcome"


def test_what_the_app_says_and_ends_at_once_arrives(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    heard: list[bytes] = []
    serving(node.b.listen(PORT), lambda sock: (heard.append(read_all(sock)), sock.sendall(b"thanks")))  # type: ignore[func-returns-value,arg-type]
    with node.a.dial(node.b.address(PORT)) as app:
        app.sendall(b"all of it")
        app.shutdown(socket.SHUT_WR)
        assert read_all(app) == b"thanks"
    assert heard == [b"all of it"]


def test_the_server_may_end_first(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    heard: list[bytes] = []
    done = threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        heard.append(read_all(sock))
        done.set()

    serving(node.b.listen(PORT), serve)
    with node.a.dial(node.b.address(PORT)) as app:
        assert read_all(app) == b"bye"
        app.sendall(b"still here")
    assert done.wait(10)
    assert heard == [b"still here"]


def test_a_reset_of_the_client_is_a_reset_at_the_server(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    outcome: list[object] = []
    accepted, done = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.recv(1)
        accepted.set()
        try:
            outcome.append(sock.recv(1))
        except OSError as error:
            outcome.append(type(error))
        done.set()

    serving(node.b.listen(PORT), serve)
    app = node.a.dial(node.b.address(PORT))
    app.sendall(b"x")
    assert accepted.wait(10)
    reset(app)
    assert done.wait(10)
    assert outcome == [ConnectionResetError]


def test_a_reset_of_the_server_is_a_reset_at_the_client(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    serving(node.b.listen(PORT), lambda sock: (sock.recv(1), reset(sock)))  # type: ignore[func-returns-value,arg-type]
    with node.a.dial(node.b.address(PORT)) as app:
        app.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            app.recv(1)


def test_a_reset_after_half_close_is_noticed(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    """The app has said FIN, and then vanishes while the answer is still to come."""
    outcome: list[object] = []
    half, done = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        read_all(sock)
        half.set()
        try:
            while True:
                sock.sendall(b"x" * 65536)
        except OSError as error:
            outcome.append(type(error))
        done.set()

    serving(node.b.listen(PORT), serve)
    app = node.a.dial(node.b.address(PORT))
    app.shutdown(socket.SHUT_WR)
    assert half.wait(10)
    reset(app)
    assert done.wait(10)
    assert outcome[0] in (ConnectionResetError, BrokenPipeError)
    assert pair[0].ended().error


def test_bulk_arrives_intact_both_ways(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    """64 MiB each way at the same time, and the half-closes at their ends."""
    said, answered = os.urandom(1 << 20) * (SIZE >> 20), os.urandom(1 << 20) * (SIZE >> 20)
    heard: list[str] = []

    def serve(sock: socket.socket) -> None:
        sender = in_background(lambda: (sock.sendall(answered), sock.shutdown(socket.SHUT_WR)))
        heard.append(hashlib.sha256(read_all(sock)).hexdigest())
        sender.join(20)

    serving(node.b.listen(PORT), serve)
    with node.a.dial(node.b.address(PORT)) as app:
        sender = in_background(lambda: (app.sendall(said), app.shutdown(socket.SHUT_WR)))
        got = read_all(app)
        sender.join(20)
    record = pair[0].ended()
    assert hashlib.sha256(got).digest() == hashlib.sha256(answered).digest()
    assert heard == [hashlib.sha256(said).hexdigest()]
    assert (record.sent, record.received) == (SIZE, SIZE)


def test_five_hundred_connections_at_once(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    serving(node.b.listen(PORT), echo)
    apps = [node.a.dial(node.b.address(PORT)) for _ in range(500)]
    for number, app in enumerate(apps):
        app.sendall(b"%d" % number)
    assert [app.recv(100) for app in apps] == [b"%d" % number for number in range(500)]
    counters = pair[0].describe().counters
    assert counters["connections"] == 500
    assert counters["pool_tunnels"] == 5  # of 100 streams each
    for app in apps:
        app.close()
    pair[0].wait(lambda: len(pair[0].closed) == 500, "all to be closed")
    assert pair[0].describe().counters["connections"] == 0


def test_a_slow_reader_delays_nobody_and_holds_little(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    """One app does not read what it gets; others on the same tunnel go on."""

    def pour(sock: socket.socket) -> None:
        if sock.recv(1) == b"p":
            while True:
                sock.sendall(b"x" * (1 << 20))
        sock.sendall(b"y")
        echo(sock)

    serving(node.b.listen(PORT), pour)
    slow = node.a.dial(node.b.address(PORT))
    slow.sendall(b"p")
    before = _settled_rss(pair[0])
    with node.a.dial(node.b.address(PORT)) as fast:
        fast.sendall(b"e")
        assert fast.recv(1) == b"y"
        block = os.urandom(1 << 20)
        for _ in range(16):
            sender = in_background(lambda: fast.sendall(block))
            assert read_exactly(fast, len(block)) == block
            sender.join(10)
    assert _rss(pair[0]) - before < 16 << 20
    assert pair[0].describe().counters["pool_tunnels"] == 1
    assert slow.recv(1 << 10) == b"x" * (1 << 10)
    slow.close()


def _rss(worker: WorkerProcess) -> int:
    with open(f"/proc/{worker.process.pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _settled_rss(worker: WorkerProcess) -> int:
    """Once the slow reader's window is full, what the process holds does not change any more."""
    last = -1
    while (now := worker.describe().connections[0].received) != last:
        last = now
        time.sleep(0.2)
    return _rss(worker)


def test_one_tunnel_carries_many_connections_and_is_kept(node: Node, pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    serving(node.b.listen(PORT), echo)
    for _ in range(20):
        with node.a.dial(node.b.address(PORT)) as app:
            app.sendall(b"x")
            assert app.recv(1) == b"x"
    assert pair[0].describe().counters["pool_tunnels"] == 1
    assert pair[1].describe().counters["inbound_tunnels"] == 1


def test_a_pod_that_is_on_the_same_worker_is_reached_through_a_tunnel_too(node: Node) -> None:
    worker = node.worker(node.a, node.b)
    serving(node.b.listen(PORT), echo)
    with node.a.dial(node.b.address(PORT)) as app:
        app.sendall(b"x")
        assert app.recv(1) == b"x"
    assert {record.protocol for record in (worker.ended(_outbound), worker.ended(_inbound))} == {"HBONE"}


def _outbound(record: object) -> bool:
    return record.direction == "outbound"  # type: ignore[attr-defined,no-any-return]


def _inbound(record: object) -> bool:
    return record.direction == "inbound"  # type: ignore[attr-defined,no-any-return]


def test_outside_the_mesh_is_passed_through(node: Node) -> None:
    worker = node.worker(node.a)
    worker.update(removed_workloads=(node.b.uid,))
    serving(node.b.listen(PORT), echo)
    with node.a.dial(node.b.address(PORT)) as app:
        app.sendall(b"plain")
        assert app.recv(100) == b"plain"
        app.shutdown(socket.SHUT_WR)
        assert read_all(app) == b""
    record = worker.ended()
    assert (record.protocol, record.sent, record.received) == ("TCP", 5, 5)


def test_passed_through_resets_and_bulk(node: Node) -> None:
    worker = node.worker(node.a)
    worker.update(removed_workloads=(node.b.uid,))
    data = os.urandom(1 << 20) * 16

    def serve(sock: socket.socket) -> None:
        sock.sendall(read_exactly(sock, len(data)))
        sock.recv(1)
        reset(sock)

    serving(node.b.listen(PORT), serve)
    with node.a.dial(node.b.address(PORT)) as app:
        sender = in_background(lambda: app.sendall(data))
        assert read_exactly(app, len(data)) == data
        sender.join(10)
        app.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            app.recv(1)


@pytest.mark.parametrize("pod", ["a", "b"])
def test_a_port_where_nobody_listens_is_an_error_at_once(
    node: Node, pair: tuple[WorkerProcess, WorkerProcess], pod: str
) -> None:
    target: Pod = getattr(node, pod)
    assert is_reset(lambda: node.a.dial(target.address(9)))
    record = pair[0].ended()
    assert record.flags == "CONNECT"
    assert record.error
