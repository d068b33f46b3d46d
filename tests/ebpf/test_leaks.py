"""Whatever becomes of connections, the maps end as small as they began."""

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from ebpf.node import Capture
from mesh.model import ports
from mesh.model.address import Ip, SocketAddress
from tests.ebpf.stage import V4, V6, Stage, listen, outbound_ztunnel

pytestmark = pytest.mark.root

RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: no TIME_WAIT, so that ports do not run out


def test_ten_thousand_connections(stage: Stage) -> None:
    def dial() -> int:
        for number in range(10_000):
            family = V6 if number % 2 else V4
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                connection.connect((stage.b.ip(family), 8080))
        return number + 1

    before = stage.capture.counts()
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie)
    assert stage.app(stage.a, dial).report() == 10_000
    stage.capture.withdraw(stage.a.cookie)
    assert stage.capture.counts() == before


def test_refused_connections(stage: Stage) -> None:
    def dial() -> int:
        refused = 0
        for number in range(2_000):
            family = V6 if number % 2 else V4
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                try:
                    connection.connect((stage.b.ip(family), 8080))
                except ConnectionRefusedError:
                    refused += 1
        return refused

    stage.capture.enrol(stage.a.cookie)
    assert stage.app(stage.a, dial).report() == 2_000
    assert stage.capture.counts()["in_flight"] == 0


def crowding(stage: Stage, number: int) -> Any:
    """Dials more than a listener that accepts nobody has room for; some handshakes do not end."""

    def body() -> Iterator[Any]:
        sockets = []
        for _ in range(number):
            connection = socket.socket()
            connection.setblocking(False)
            connection.connect_ex((stage.b.ip4, 8080))
            sockets.append(connection)
        yield len(sockets)

    return body


def sleeping_ztunnel() -> Iterator[Any]:
    with listen(V4, "127.0.0.1", ports.OUTBOUND, backlog=4):
        yield "ready"
        yield "asleep"


def test_a_killed_app_takes_its_handshakes_along(stage: Stage) -> None:
    stage.ztunnel(stage.a, sleeping_ztunnel).passed()
    stage.capture.enrol(stage.a.cookie)
    app = stage.app(stage.a, crowding(stage, 100))
    app.report()
    assert stage.capture.counts()["in_flight"] > 0
    app.kill()
    assert stage.capture.counts()["in_flight"] == 0


def test_a_killed_ztunnel_leaves_nothing(stage: Stage) -> None:
    """Connections that it never accepted end with it."""
    ztunnel = stage.ztunnel(stage.a, sleeping_ztunnel)
    ztunnel.passed()
    stage.capture.enrol(stage.a.cookie)
    app = stage.app(stage.a, crowding(stage, 4))
    app.report()
    ztunnel.kill()
    app.kill()
    assert stage.capture.counts()["in_flight"] == 0


def test_a_client_that_is_gone_before_it_is_accepted_is_still_known(stage: Stage) -> None:
    """Connect, send, close: what some loggers do."""

    def ztunnel() -> Iterator[Any]:
        capture = Capture.open(stage.pins)
        with listen(V4, "127.0.0.1", ports.OUTBOUND) as listener:
            yield "ready"
            connection, _ = listener.accept()
            yield str(capture.original_destination(connection.fileno())), connection.recv(100)

    def fire_and_forget() -> None:
        with socket.create_connection((stage.b.ip4, 8080)) as connection:
            connection.sendall(b"line")

    proxy = stage.ztunnel(stage.a, ztunnel)
    proxy.report()
    stage.capture.enrol(stage.a.cookie)
    stage.app(stage.a, fire_and_forget).report()
    assert stage.capture.counts()["in_flight"] == 0
    assert proxy.next() == (f"{stage.b.ip4}:8080", b"line")


def test_deliveries(stage: Stage) -> None:
    """To an app that accepts, and to a port where nobody listens."""

    def deliver() -> int:
        capture = Capture.open(stage.pins)
        refused = 0
        with listen(V4, stage.b.ip4, 8080) as app:
            for number in range(500):
                with socket.socket() as connection:
                    capture.present_client(connection.fileno(), SocketAddress(Ip("10.244.0.2"), 1024 + number))
                    refused += connection.connect_ex((stage.b.ip4, 8080 + number % 2)) != 0
                if number % 2 == 0:
                    app.accept()[0].close()
        return refused

    stage.capture.enrol(stage.b.cookie)
    assert stage.ztunnel(stage.b, deliver).report() == 250
    assert stage.capture.counts()["in_flight"] == 0
