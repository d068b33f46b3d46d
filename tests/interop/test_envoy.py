"""Envoy at the other end of the tunnel, as client and as server: the same conversations both ways."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop import envoy
from tests.worker.node import Node, echo, in_background, read_all, reset, serving

pytestmark = pytest.mark.root

APP = 8080
DOOR = 9000  # where apps reach their Envoy
SIZE = 64 << 20

Dial = Callable[[], socket.socket]


@pytest.fixture(params=["envoy-to-ambit", "ambit-to-envoy"])
def dial(request: pytest.FixtureRequest, node: Node, tmp_path: Path) -> Iterator[Dial]:
    """Dials, as an app of pod a, the app at port 8080 of pod b."""
    if request.param == "envoy-to-ambit":
        node.worker(node.b)
        config = envoy.client(node.a, node.b, node.certificate(node.a.identity), DOOR, f"{node.b.ip4}:{APP}")
        with envoy.running(node.a, config, tmp_path):
            yield lambda: envoy.dial(node.a, DOOR)
    else:
        node.worker(node.a)
        with envoy.running(node.b, envoy.server(node.b, node.certificate(node.b.identity), APP), tmp_path):
            yield lambda: node.a.dial(node.b.address(APP))


def test_echo_and_half_close(node: Node, dial: Dial) -> None:
    serving(node.b.listen(APP), echo)
    with dial() as app:
        app.sendall(b"hello")
        assert app.recv(100) == b"hello"
        app.sendall(b"and good bye")
        app.shutdown(socket.SHUT_WR)
        assert read_all(app) == b"and good bye"


def test_the_server_speaks_first(node: Node, dial: Dial) -> None:
    serving(node.b.listen(APP), lambda sock: (sock.sendall(b"220 welcome"), sock.recv(1)))  # type: ignore[arg-type,func-returns-value]
    with dial() as app:
        assert app.recv(100) == b"220 welcome"


def test_the_answer_comes_after_the_end_of_the_question(node: Node, dial: Dial) -> None:
    serving(node.b.listen(APP), lambda sock: sock.sendall(hashlib.sha256(read_all(sock)).digest()))
    data = os.urandom(1 << 20)
    with dial() as app:
        app.sendall(data)
        app.shutdown(socket.SHUT_WR)
        assert read_all(app) == hashlib.sha256(data).digest()


def test_bulk_both_ways(node: Node, dial: Dial) -> None:
    """At the same time; the client ends first, since Envoy resets a request whose response has ended before it."""
    said, answered = os.urandom(1 << 20) * (SIZE >> 20), os.urandom(1 << 20) * (SIZE >> 20)
    heard: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        sender = in_background(lambda: sock.sendall(answered))
        heard.append(hashlib.sha256(read_all(sock)).digest())
        sender.join(20)

    serving(node.b.listen(APP), serve)
    with dial() as app:
        sender = in_background(lambda: (app.sendall(said), app.shutdown(socket.SHUT_WR)))
        got = hashlib.sha256(read_all(app)).digest()
        sender.join(20)
    assert got == hashlib.sha256(answered).digest()
    assert heard == [hashlib.sha256(said).digest()]


def test_a_hundred_streams_at_once(node: Node, dial: Dial) -> None:
    serving(node.b.listen(APP), echo)
    apps = [dial() for _ in range(100)]
    for number, app in enumerate(apps):
        app.sendall(b"%03d" % number)
    assert [app.recv(100) for app in apps] == [b"%03d" % number for number in range(100)]
    for app in apps:
        app.close()


def test_a_reset_by_the_server_ends_the_client(node: Node, dial: Dial) -> None:
    serving(node.b.listen(APP), lambda sock: (sock.recv(1), reset(sock)))  # type: ignore[arg-type,func-returns-value]
    with dial() as app:
        app.sendall(b"x")
        assert _ends(app)


def test_a_reset_by_the_client_ends_the_server(node: Node, dial: Dial) -> None:
    outcome: list[bool] = []
    ready, done = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.recv(1)
        ready.set()
        outcome.append(_ends(sock))
        done.set()

    serving(node.b.listen(APP), serve)
    app = dial()
    app.sendall(b"x")
    assert ready.wait(10)
    reset(app)
    assert done.wait(10)
    assert outcome == [True]


def _ends(sock: socket.socket) -> bool:
    """Envoy makes FIN of RST where it ends a tunnel."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
