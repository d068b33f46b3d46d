"""Clients and servers that mean harm: what they can make the waypoint do, and hold, is bounded."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from mesh.model.routing import AppProtocol
from tests.waypoint.rig import Rig, app, is_closed, read_all
from tests.waypoint.test_http1 import ask, mirror, read_head
from tests.waypoint.test_http2 import Echo, Http2
from waypoint.http import http1_server

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
HEADERS, CONTINUATION, RST_STREAM, GOAWAY = 1, 9, 3, 7
BOUND = 6 << 20  # bytes between one who sends and one who does not read: windows and socket buffers of three hops


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as running:
        yield running


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def goaway_code(data: bytes) -> int | None:
    """The error code of the GOAWAY in what a server sent."""
    at = 0
    while at + 9 <= len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        if data[at + 3] == GOAWAY:
            return int.from_bytes(data[at + 13 : at + 17], "big")
        at += 9 + size
    return None


def send_until_cut(sock: socket.socket, pieces: Iterator[bytes]) -> bytes:
    try:
        for piece in pieces:
            sock.sendall(piece)
    except OSError:
        pass
    try:
        return read_all(sock)
    except OSError:
        return b""


def test_a_head_that_never_ends_is_cut(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_server, "HEAD_TIMEOUT", 0.3)
    rig.simple(AppProtocol.HTTP, target=9)
    with rig.dial() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\nX-Slow: ")
        assert read_head(sock).startswith(b"HTTP/1.1 408 ")
        read_all(sock)


def test_empty_lines_without_end_are_read_once() -> None:
    """Each taken by itself would copy what is left of the buffer: a megabyte would cost a second."""
    taken: list[int] = []

    class Counting:
        user: object = None

        def acknowledge(self, size: int) -> None:
            taken.append(size)

    loop = asyncio.new_event_loop()
    server = http1_server.Http1Server(loop, Counting(), lambda *_: None, print, list)  # type: ignore[arg-type]
    server.received([memoryview(b"\r\n" * 30_000 + b"\r")])
    assert taken == [60_000]
    loop.close()


def test_rapid_resets_end_the_connection(rig: Rig) -> None:
    block = b"\x82\x86\x84\x01\x03web"

    def pieces() -> Iterator[bytes]:
        yield PREFACE + SETTINGS
        for number in range(20_000):
            stream = 2 * number + 1
            yield frame(HEADERS, 5, stream, block) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")

    rig.simple(AppProtocol.HTTP2, target=9)
    with rig.dial() as sock:
        data = send_until_cut(sock, pieces())
        assert goaway_code(data) in (11, None)
        assert is_closed(sock)
    assert len(rig.witness.requests) < 5000


def test_continuations_without_end_are_cut(rig: Rig) -> None:
    def pieces() -> Iterator[bytes]:
        yield PREFACE + SETTINGS + frame(HEADERS, 1, 1, b"\x82\x86\x84\x01\x03web")
        for _ in range(10_000):
            yield frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 100)

    rig.simple(AppProtocol.HTTP2, target=9)
    with rig.dial() as sock:
        assert goaway_code(send_until_cut(sock, pieces())) in (11, None)
    assert not rig.witness.requests


def test_a_header_bomb_costs_its_sender_the_request(rig: Rig) -> None:
    with Echo() as port:
        rig.simple(AppProtocol.HTTP2, target=port)
        client = Http2(rig.dial())
        stream = client.request(*[("x-large", "a" * 4000)] * 40)
        with pytest.raises(EOFError):
            client.answer(stream)


def test_a_client_that_does_not_read_stops_the_app(rig: Rig) -> None:
    sent = [0]

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            sent[0] += sock.send(b"x" * 65536)

    with app("127.9.1.1", serve) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        with rig.dial() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            settle(sent)
            assert sent[0] < BOUND * 3


def test_an_app_that_does_not_read_stops_its_client(rig: Rig) -> None:
    import threading

    release = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        release.wait(20)

    with app("127.9.1.1", serve) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        with rig.dial() as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000000\r\n\r\n")
            sock.setblocking(False)
            sent = [0]
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                try:
                    sent[0] += sock.send(b"x" * 65536)
                except BlockingIOError:
                    time.sleep(0.01)
            assert sent[0] < BOUND * 3
            release.set()


def settle(count: list[int]) -> None:
    """Returns when a counter has not moved for half a second."""
    before = -1
    while count[0] != before or not before:
        before = count[0]
        time.sleep(0.5)


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
def test_a_server_that_breaks_http_is_a_503(rig: Rig, response: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(response)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)

    with app("127.9.1.1", serve) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        with rig.dial() as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
            head = read_head(sock)
            while head.startswith(b"HTTP/1.1 100 "):
                head = read_head(sock)
            assert head.startswith(b"HTTP/1.1 503 ")


def test_a_second_response_is_given_to_nobody(rig: Rig) -> None:
    """A server that answers twice must not answer the next request before it has come."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noneHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        sock.recv(1)

    with app("127.9.1.1", serve) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        with rig.dial() as sock:
            assert ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")[1] == b"one"
            assert ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")[1] == b"one"
    assert len(rig.connects) == 2


def test_idle_clients_open_no_connections(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        idle = [rig.dial() for _ in range(200)]
        with rig.dial() as sock:
            assert ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")[0].startswith(b"HTTP/1.1 200 ")
        assert len(rig.connects) == 1, "idle clients open nothing"
        for one in idle:
            one.close()
