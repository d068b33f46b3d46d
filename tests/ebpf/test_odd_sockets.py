"""Ways to connect that are not the usual one: each is captured or refused, none leaks past ztunnel."""

import contextlib
import errno
import select
import socket
from typing import Any

import pytest

from tests.ebpf.stage import V4, V6, Stage, address, disconnect, outbound_ztunnel, told

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])
MSG_FASTOPEN = 0x20000000
TCP_FASTOPEN_CONNECT = 30
SO_BINDTODEVICE = 25


@pytest.fixture(autouse=True)
def ztunnel(stage: Stage) -> None:
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie)


@FAMILIES
def test_mptcp(stage: Stage, family: int) -> None:
    host = stage.b.ip(family)

    def dial() -> Any:
        with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as connection:
            connection.connect((host, 8080))
            return address(connection.getpeername()), told(connection)

    peer, said = stage.app(stage.a, dial).report()
    assert said == f"15001 {peer}"
    assert peer.ip == host


@FAMILIES
def test_fast_open_with_sendto(stage: Stage, family: int) -> None:
    host = stage.b.ip(family)

    def dial() -> Any:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.sendto(b"early", MSG_FASTOPEN, (host, 8080))
            return address(connection.getpeername()), told(connection)

    peer, said = stage.app(stage.a, dial).report()
    assert (peer.ip, said) == (host, f"15001 {peer}")


def test_fast_open_with_a_socket_option(stage: Stage) -> None:
    def dial() -> str:
        with socket.socket() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
            connection.connect((stage.b.ip4, 8080))
            connection.sendall(b"early")
            return told(connection)

    assert stage.app(stage.a, dial).report() == f"15001 {stage.b.ip4}:8080"


def test_connect_again_while_it_is_under_way(stage: Stage) -> None:
    def dial() -> Any:
        with socket.socket() as connection:
            connection.setblocking(False)
            codes = [connection.connect_ex((stage.b.ip4, 8080))]
            select.select([], [connection], [])
            codes += [connection.connect_ex((stage.b.ip4, 8080)) for _ in range(2)]
            connection.setblocking(True)
            return codes, address(connection.getpeername()), told(connection)

    codes, peer, said = stage.app(stage.a, dial).report()
    assert codes[0] == errno.EINPROGRESS
    assert codes[2] == errno.EISCONN
    assert said == f"15001 {peer}" == f"15001 {stage.b.ip4}:8080"


def test_disconnected_and_connected_elsewhere(stage: Stage) -> None:
    """connect() to AF_UNSPEC frees a socket for another destination: each time it shows where it is now."""

    def dial() -> Any:
        with socket.socket() as connection:
            seen = []
            for port in (8080, 8081):
                connection.connect((stage.b.ip4, port))
                seen.append((address(connection.getpeername()), told(connection)))
                disconnect(connection)
            with socket.create_server(("127.0.0.1", 9000)):
                connection.connect(("127.0.0.1", 9000))
                seen.append((address(connection.getpeername()), ""))
            return seen

    seen = stage.app(stage.a, dial).report()
    assert [(str(peer), said) for peer, said in seen] == [
        (f"{stage.b.ip4}:8080", f"15001 {stage.b.ip4}:8080"),
        (f"{stage.b.ip4}:8081", f"15001 {stage.b.ip4}:8081"),
        ("127.0.0.1:9000", ""),
    ]
    assert stage.capture.counts()["in_flight"] == 0


def test_a_socket_that_was_refused_may_try_again(stage: Stage) -> None:
    def dial() -> str:
        with socket.socket() as connection:
            with contextlib.suppress(ConnectionRefusedError):
                connection.connect(("127.0.0.1", 9))
            connection.connect((stage.b.ip4, 8080))
            return told(connection)

    assert stage.app(stage.a, dial).report() == f"15001 {stage.b.ip4}:8080"


@FAMILIES
def test_a_socket_bound_to_a_device(stage: Stage, family: int) -> None:
    """As `curl --interface eth0` does."""

    def dial() -> str:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"eth0")
            connection.connect((stage.b.ip(family), 8080))
            return told(connection)

    assert stage.app(stage.a, dial).report().startswith("15001")


def test_the_same_source_port_to_both_ztunnel_ports(stage: Stage) -> None:
    """One port may serve two connections at a time, if they go to different places."""

    def dial() -> Any:
        said = []
        for port in (8080, 53):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(("127.0.0.1", 33333))
            connection.connect((stage.b.ip4, port))
            said.append(connection)
        return [told(connection) for connection in said]

    assert stage.app(stage.a, dial).report() == [f"15001 {stage.b.ip4}:8080", f"15053 {stage.b.ip4}:53"]


def test_udp_other_than_dns_is_left_alone(stage: Stage) -> None:
    def receive() -> Any:
        with socket.socket(V4, socket.SOCK_DGRAM) as receiver:
            receiver.bind((stage.b.ip4, 5353))
            yield "ready"
            yield receiver.recvfrom(100)

    def send() -> Any:
        with socket.socket(V4, socket.SOCK_DGRAM) as sender:
            sender.connect((stage.b.ip4, 5353))
            sender.send(b"x")
            return sender.getpeername(), sender.getsockname()

    receiver = stage.app(stage.b, receive)
    receiver.passed()
    peer, own = stage.app(stage.a, send).report()
    assert receiver.report() == (b"x", own)
    assert own[0] == stage.a.ip4
    assert peer == (stage.b.ip4, 5353)
