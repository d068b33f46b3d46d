"""When the kernel cannot remember a connection, it refuses it: nothing leaves in plain text."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ebpf import contract
from ebpf.maps import Map
from ebpf.node import Capture
from mesh.model import ports
from mesh.model.address import Ip, SocketAddress
from tests.ebpf.stage import V4, V6, Stage, listen, outbound_ztunnel

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])


@contextmanager
def full(stage: Stage) -> Iterator[None]:
    """The map of handshakes under way, full to the last entry."""
    in_flight = Map.open(stage.pins / "maps" / "in_flight")
    keys = [number.to_bytes(contract.FLOW_SIZE, "big") for number in range(in_flight.info.entries)]
    try:
        for key in keys:
            in_flight.update(key, bytes(contract.ENDPOINT_SIZE))
        yield
    finally:
        for key in keys:
            in_flight.delete(key)
        in_flight.close()


def dial(family: int, host: str) -> Any:
    def body() -> None:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.connect((host, 8080))

    return body


@FAMILIES
def test_a_full_map_refuses_the_app(stage: Stage, family: int) -> None:
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie)
    with full(stage), pytest.raises(PermissionError):
        stage.app(stage.a, dial(family, stage.b.ip(family))).report()
    stage.app(stage.a, dial(family, stage.b.ip(family))).report()


def test_a_full_map_leaves_pods_alone_that_are_not_enrolled(stage: Stage) -> None:
    def server() -> Iterator[Any]:
        with listen(V4, stage.b.ip4, 8080) as listener:
            yield "ready"
            listener.accept()
            yield "reached"

    app = stage.app(stage.b, server)
    app.passed()
    with full(stage):
        stage.app(stage.a, dial(V4, stage.b.ip4)).report()
    assert app.report() == "reached"


def test_a_full_map_refuses_ztunnel_the_dial_that_would_hide_a_client(stage: Stage) -> None:
    def deliver() -> None:
        capture = Capture.open(stage.pins)
        with listen(V4, stage.b.ip4, 8080), socket.socket() as connection:
            capture.present_client(connection.fileno(), SocketAddress(Ip("10.244.0.2"), 40123))
            connection.connect((stage.b.ip4, 8080))

    stage.capture.enrol(stage.b.cookie)
    with full(stage), pytest.raises(PermissionError):
        stage.ztunnel(stage.b, deliver).report()


PROXY_PORTS = (ports.OUTBOUND, ports.INBOUND_PLAINTEXT, ports.HBONE, ports.DNS)


def bind_beside(family: int, kind: int) -> Any:
    """Per port of the proxy, and one other: whether a process of the same user can share it."""

    def body() -> list[bool]:
        return [can_bind(family, kind, port) for port in (*PROXY_PORTS, 8080)]

    return body


def can_bind(family: int, kind: int, port: int) -> bool:
    with socket.socket(family, kind) as sock:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            sock.bind(("", port))
        except PermissionError:
            return False
    return True


@FAMILIES
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_ztunnels_ports_in_an_enrolled_pod_are_its_own(stage: Stage, family: int, kind: int) -> None:
    assert stage.app(stage.a, bind_beside(family, kind)).report() == [True] * 5
    stage.capture.enrol(stage.a.cookie)
    assert stage.app(stage.a, bind_beside(family, kind)).report() == [False] * 4 + [True]
    assert stage.ztunnel(stage.a, bind_beside(family, kind)).report() == [True] * 5
    assert stage.app(stage.b, bind_beside(family, kind)).report() == [True] * 5


def test_more_pods_than_there_is_room_for_are_an_error(stage: Stage) -> None:
    limit = contract.MAPS["enrolled"].entries
    try:
        for number in range(limit):
            stage.capture.enrol((1 << 48) + number)
        with pytest.raises(OSError, match="enrolled") as full_up:
            stage.capture.enrol((1 << 48) + limit)
        assert full_up.value.errno == errno.E2BIG
        assert len(stage.capture.enrolled()) == limit
    finally:
        for number in range(limit):
            stage.capture.withdraw((1 << 48) + number)
