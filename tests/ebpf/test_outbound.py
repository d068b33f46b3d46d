"""An enrolled pod dials: its connection ends at ztunnel, which learns the destination; the app sees what it dialled."""

import errno
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.model.address import SocketAddress
from tests.ebpf.stage import V4, V6, Stage, address, disconnect, listen, outbound_ztunnel, told

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])


def enrolled_with_ztunnel(stage: Stage) -> None:
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie)


LAST_ACK = "09"  # enum in net/tcp_states.h, as /proc/net/tcp writes it


def unacknowledged(patience: int = 50) -> int:
    """Connections of this network namespace that still wait for their last acknowledgement after `patience` looks."""
    for _ in range(patience):
        tables = [Path("/proc/thread-self/net", name).read_text() for name in ("tcp", "tcp6")]
        waiting = sum(line.split()[3] == LAST_ACK for table in tables for line in table.splitlines())
        if not waiting:
            return 0
        time.sleep(0.05)
    return waiting


def dial(family: int, host: str, port: int, source: str | None = None, source_port: int = 0) -> Any:
    """What the app sees: peer, own address, and what the other side says."""
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        if source is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind((source, source_port))
        connection.connect((host, port))
        return address(connection.getpeername()), address(connection.getsockname()), told(connection)


@FAMILIES
def test_ztunnel_learns_the_destination_and_the_app_sees_it(stage: Stage, family: int) -> None:
    enrolled_with_ztunnel(stage)
    host = stage.b.ip(family)
    peer, _, said = stage.app(stage.a, lambda: dial(family, host, 8080)).report()
    assert (peer.ip, peer.port) == (host, 8080)
    assert said == f"15001 {peer}"


def test_ipv4_dialled_with_an_ipv6_socket(stage: Stage) -> None:
    enrolled_with_ztunnel(stage)
    peer, _, said = stage.app(stage.a, lambda: dial(V6, f"::ffff:{stage.b.ip4}", 8080)).report()
    assert (peer.ip, peer.port) == (stage.b.ip4, 8080)
    assert said == f"15001 {stage.b.ip4}:8080"


@FAMILIES
def test_the_local_address_is_the_pods_own(stage: Stage, family: int) -> None:
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie, [stage.a.ip4, stage.a.ip6])
    peer, own, said = stage.app(stage.a, lambda: dial(family, stage.b.ip(family), 8080)).report()
    assert own.ip == stage.a.ip(family)
    assert said == f"15001 {peer}"


@FAMILIES
def test_a_closed_connection_is_acknowledged(stage: Stage, family: int) -> None:
    """The last acknowledgement of each comes from a socket that is closed: none may be lost on its way."""
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie, [stage.a.ip4, stage.a.ip6])

    def many() -> int:
        for _ in range(50):
            dial(family, stage.b.ip(family), 8080)
        return unacknowledged()

    assert stage.app(stage.a, many).report() == 0


def test_the_local_address_of_ipv4_on_an_ipv6_socket(stage: Stage) -> None:
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie, [stage.a.ip4, stage.a.ip6])
    _, own, said = stage.app(stage.a, lambda: dial(V6, f"::ffff:{stage.b.ip4}", 8080)).report()
    assert own.ip == stage.a.ip4
    assert said == f"15001 {stage.b.ip4}:8080"


def test_an_address_family_that_the_pod_has_not(stage: Stage) -> None:
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie, [stage.a.ip4])
    peer, own, said = stage.app(stage.a, lambda: dial(V6, stage.b.ip6, 8080)).report()
    assert own.ip == "::1"
    assert said == f"15001 {peer}"


@FAMILIES
def test_socket_bound_to_the_pod_before_it_connects(stage: Stage, family: int) -> None:
    enrolled_with_ztunnel(stage)
    source = stage.a.ip(family)
    peer, own, said = stage.app(stage.a, lambda: dial(family, stage.b.ip(family), 8080, source)).report()
    assert own.ip == source
    assert said == f"15001 {peer}"


@pytest.mark.parametrize(
    ("family", "shown"),
    [(V4, V4), (V6, V6), (V6, V4)],
    ids=["v4", "v6", "v4 on v6"],
)
def test_a_port_bound_before_it_connects(stage: Stage, family: int, shown: int) -> None:
    """As NFS clients and old protocols do: the port is the app's, the address is the pod's."""
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie, [stage.a.ip4, stage.a.ip6])
    host = f"::ffff:{stage.b.ip4}" if family != shown else stage.b.ip(family)
    peer, own, said = stage.app(stage.a, lambda: dial(family, host, 8080, "", 700)).report()
    assert (own.ip, own.port) == (stage.a.ip(shown), 700)
    assert said == f"15001 {peer}" == f"15001 {SocketAddress(stage.b.ip(shown), 8080)}"


def test_a_socket_that_was_captured_before_shows_what_it_is_now(stage: Stage) -> None:
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()
    stage.capture.enrol(stage.a.cookie, [stage.a.ip4, stage.a.ip6])

    def dial_twice() -> Any:
        with socket.socket() as connection, listen(V4, "127.0.0.1", 9000):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(("", 701))
            connection.connect((stage.b.ip4, 8080))
            seen = [connection.getsockname()]
            disconnect(connection)
            seen.append(connection.getsockname())
            connection.connect(("127.0.0.1", 9000))
            return [*seen, connection.getsockname()]

    seen = stage.app(stage.a, dial_twice).report()
    assert [ip for ip, _ in seen] == [stage.a.ip4, "0.0.0.0", "127.0.0.1"]


@FAMILIES
def test_dns_over_tcp_goes_to_the_dns_proxy(stage: Stage, family: int) -> None:
    enrolled_with_ztunnel(stage)
    peer, _, said = stage.app(stage.a, lambda: dial(family, stage.b.ip(family), 53)).report()
    assert (peer.ip, peer.port) == (stage.b.ip(family), 53)
    assert said == f"15053 {peer}"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"])
def test_loopback_is_left_alone(stage: Stage, host: str) -> None:
    enrolled_with_ztunnel(stage)
    family = V6 if ":" in host else V4

    def talk_to_itself() -> bytes:
        with listen(V6, "::", 8080), socket.socket(family) as connection:
            connection.connect((host, 8080))
            return b"reached"

    assert stage.app(stage.a, talk_to_itself).report() == b"reached"


@FAMILIES
def test_a_dial_to_ztunnel_itself_has_no_destination(stage: Stage, family: int) -> None:
    enrolled_with_ztunnel(stage)
    loopback = "127.0.0.1" if family == V4 else "::1"
    assert stage.app(stage.a, lambda: dial(family, loopback, 15001)).report()[2] == "15001 None"


@FAMILIES
def test_pods_that_are_not_enrolled_reach_each_other(stage: Stage, family: int) -> None:
    stage.ztunnel(stage.a, outbound_ztunnel(stage.pins)).passed()

    def serve() -> Iterator[Any]:
        with listen(family, stage.b.ip(family), 8080) as listener:
            yield "ready"
            connection, peer = listener.accept()
            connection.close()
            yield address(peer).ip

    server = stage.app(stage.b, serve)
    server.passed()
    peer, own, said = stage.app(stage.a, lambda: dial(family, stage.b.ip(family), 8080)).report()
    assert server.report() == own.ip == stage.a.ip(family)
    assert (peer.ip, said) == (stage.b.ip(family), "")
    assert not any(count for name, count in stage.capture.counts().items() if name != "exempt_cgroups")


@FAMILIES
def test_without_ztunnel_a_dial_is_refused(stage: Stage, family: int) -> None:
    stage.capture.enrol(stage.a.cookie)
    with pytest.raises(ConnectionRefusedError):
        stage.app(stage.a, lambda: dial(family, stage.b.ip(family), 8080)).report()
    assert stage.capture.counts()["in_flight"] == 0


def test_withdrawn_pod_dials_directly_again(stage: Stage) -> None:
    stage.capture.enrol(stage.a.cookie)
    stage.capture.withdraw(stage.a.cookie)
    with pytest.raises(OSError, match="refused") as refused:
        stage.app(stage.a, lambda: dial(V4, stage.b.ip4, 8080)).report()
    assert refused.value.errno == errno.ECONNREFUSED  # by the other pod, where nobody listens
