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
from tests.worker.node import Node, echo, in_background, read_all, read_exactly, reset, serving

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


# --- the benchmark's cases


@pytest.mark.parametrize("size", [128, 1024])
def test_thirty_two_connections_of_round_trips(node: Node, dial: Dial, size: int) -> None:
    serving(node.b.listen(APP), echo)
    apps = [dial() for _ in range(32)]
    for turn in range(50):
        words = [bytes((turn, number)) * (size // 2) for number in range(32)]
        for app, word in zip(apps, words, strict=True):
            app.sendall(word)
        assert [read_exactly(app, size) for app in apps] == words
    for app in apps:
        app.close()


def test_a_connection_for_each_request(node: Node, dial: Dial) -> None:
    serving(node.b.listen(APP), echo)

    def requests(number: int) -> None:
        for turn in range(100):
            word = bytes((number, turn)) * 64
            with dial() as app:
                app.sendall(word)
                done.append(read_exactly(app, len(word)) == word)

    done: list[bool] = []
    threads = [in_background(lambda number=number: requests(number)) for number in range(4)]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert done == [True] * 400


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("streams", [1, 16])
def test_bulk(node: Node, dial: Dial, direction: str, streams: int) -> None:
    data = os.urandom(1 << 20) * (SIZE // streams >> 20)
    expected = hashlib.sha256(data).digest()
    if direction == "up":
        serving(node.b.listen(APP), lambda sock: sock.sendall(hashlib.sha256(read_all(sock)).digest()))
    else:  # and waits for the client's end: see above
        serving(node.b.listen(APP), lambda sock: (sock.recv(1), sock.sendall(data), sock.recv(1)))  # type: ignore[arg-type,func-returns-value]

    def transfer() -> None:
        with dial() as app:
            app.sendall(data if direction == "up" else b"x")
            if direction == "up":
                app.shutdown(socket.SHUT_WR)
                digests.append(read_all(app))
            else:
                digests.append(hashlib.sha256(read_exactly(app, len(data))).digest())

    digests: list[bytes] = []
    threads = [in_background(transfer) for _ in range(streams)]
    for thread in threads:
        thread.join()
    assert digests == [expected] * streams


def test_five_hundred_idle_connections(node: Node, dial: Dial) -> None:
    """More than one tunnel takes; all of them still carry a byte after the others were opened."""
    serving(node.b.listen(APP), echo)
    apps = [dial() for _ in range(500)]
    for app in (*apps, *apps):
        app.sendall(b"x")
        assert app.recv(1) == b"x"
    for app in apps:
        app.close()


# --- resets


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
