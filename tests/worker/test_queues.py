"""Queues of a worker that are full: what still fits, what happens to the rest, and that gauges say so."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from mesh.model import ports
from mesh.model.address import Ip, SocketAddress
from mesh.model.workload import WorkloadUid
from tests.worker.node import Node, is_reset
from ztunnel import feed
from ztunnel.worker.connections import OUTBOUND, REPORT_SIZE, TCP, Book, Record
from ztunnel.worker.loop import PURGE_TIMERS, Loop
from ztunnel.worker.relay import CHUNK, Relay

PORT = 8080
ADDRESS = SocketAddress(Ip("10.0.0.1"), 80)


def turn(loop: Loop) -> None:
    """One that does not sleep."""
    loop.soon(lambda: None)
    loop.turn()


def test_records_do_not_pile_up_within_one_turn() -> None:
    told: list[feed.Opened | feed.Closed] = []
    book = Book(Loop())
    book.report_to(told.append)
    for _ in range(10 * REPORT_SIZE):
        record = Record(OUTBOUND, TCP, WorkloadUid("web"), ADDRESS, ADDRESS)
        book.open(record)
        book.close(record)
        assert book.waiting < REPORT_SIZE
    book.report()
    closed = [one for message in told if isinstance(message, feed.Closed) for one in message.connections]
    assert len(closed) == 10 * REPORT_SIZE
    assert book.waiting == 0


def test_cancelled_timers_are_cleaned_up() -> None:
    loop = Loop()
    for _ in range(10 * PURGE_TIMERS):
        loop.later(1000, lambda: None).cancel()
        assert loop.timers <= PURGE_TIMERS + 1


def test_a_reader_that_pauses_costs_one_chunk_and_loses_nothing() -> None:
    loop, ended = Loop(), list[str]()
    pairs = [socket.socketpair() for _ in range(2)]
    (app, ours), (theirs, server) = pairs
    for sock in (app, ours, theirs, server):
        sock.setblocking(False)
    for sock in (ours, theirs):
        loop.watch(sock.fileno(), lambda event: None)
    relay = Relay(loop, ours, theirs, ended.append)
    relay.start()
    sent = fill(lambda data: app.send(data), loop)
    assert 0 < relay.held() <= CHUNK
    app.shutdown(socket.SHUT_WR)
    assert drain(server, loop) == sent
    assert relay.held() == 0
    server.close()
    turn(loop)
    turn(loop)
    assert ended == [""]
    app.close()


def fill(send: Callable[[bytes], int], loop: Loop) -> bytes:
    """Until nothing more is taken, even after some turns."""
    sent, idle = bytearray(), 0
    while idle < 3:
        data = bytes(len(sent) + index & 0xFF for index in range(10_000))
        try:
            sent += data[: send(data)]
            idle = 0
        except BlockingIOError:
            idle += 1
        turn(loop)
    return bytes(sent)


def drain(sock: socket.socket, loop: Loop) -> bytes:
    got = bytearray()
    while True:
        try:
            data = sock.recv(1 << 16)
        except BlockingIOError:
            turn(loop)
            continue
        if not data:
            return bytes(got)
        got += data


@pytest.mark.root
def test_who_cannot_wait_for_a_tunnel_is_refused_with_the_reason(node: Node) -> None:
    silent = node.b.listen(ports.HBONE)  # no handshake is ever answered
    worker = node.worker(node.a, AMBIT_MAX_WAITING="2")
    apps = [node.a.dial(node.b.address(PORT)) for _ in range(2)]
    worker.wait(lambda: worker.describe().counters["pool_waiting"] == 2, "both to wait")
    assert is_reset(lambda: node.a.dial(node.b.address(PORT)))
    record = worker.ended()
    assert record.flags == "CONNECT"
    assert "2 connections wait for" in record.error
    assert worker.describe().counters["pool_waiting"] == 2
    for sock in (*apps, silent):
        sock.close()
