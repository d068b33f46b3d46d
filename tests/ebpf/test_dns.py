"""DNS over UDP goes to the proxy; the app sees answers from the resolver it asked, the proxy learns which that is."""

import os
import select
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from ebpf.netns import netns_cookie
from ebpf.node import Capture
from mesh.model import ports
from mesh.model.address import Ip, SocketAddress
from tests.ebpf.stage import V4, V6, Stage, address

pytestmark = pytest.mark.root

FAMILIES = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])


def proxy(stage: Stage) -> Any:
    """Answers each query with what Capture says of its resolver."""

    def body() -> Iterator[Any]:
        capture = Capture.open(stage.pins)
        cookie = netns_cookie(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        sockets = [udp(V4, "127.0.0.1", ports.DNS), udp(V6, "::1", ports.DNS)]
        yield "ready"
        while True:
            for sock in select.select(sockets, [], [])[0]:
                _, source = sock.recvfrom(512)
                meant = capture.dns_resolver(cookie, address(source))
                sock.sendto(str(meant).encode(), source)

    return body


def udp(family: int, host: str = "", port: int = 0) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(10)
    if host or port:
        sock.bind((host, port))
    return sock


@pytest.fixture(autouse=True)
def ztunnel(stage: Stage) -> None:
    stage.ztunnel(stage.a, proxy(stage)).passed()
    stage.capture.enrol(stage.a.cookie)


def text(host: str, port: int = 53) -> str:
    return str(SocketAddress(Ip(host), port))


@FAMILIES
def test_connected_socket(stage: Stage, family: int) -> None:
    """As the C library's resolver asks."""
    host = stage.b.ip(family)

    def ask() -> Any:
        with udp(family) as sock:
            sock.connect((host, 53))
            sock.send(b"query")
            said, source = sock.recvfrom(512)
            return address(sock.getpeername()), address(source), said.decode()

    peer, source, said = stage.app(stage.a, ask).report()
    assert str(peer) == str(source) == said == text(host)
    assert stage.capture.counts()["dns_clients"] == 0


@FAMILIES
def test_unconnected_socket_with_several_resolvers(stage: Stage, family: int) -> None:
    hosts = [stage.b.ip(family), Ip("fd00:10::99" if family == V6 else "10.244.0.99")]

    def ask() -> Any:
        with udp(family) as sock:
            answers = []
            for host in hosts:
                sock.sendto(b"query", (host, 53))
                said, source = sock.recvfrom(512)
                answers.append((str(address(source)), said.decode()))
            return answers

    assert stage.app(stage.a, ask).report() == [(text(host), text(host)) for host in hosts]


def test_ipv4_resolver_asked_with_an_ipv6_socket(stage: Stage) -> None:
    host = f"::ffff:{stage.b.ip4}"

    def ask() -> Any:
        with udp(V6) as connected, udp(V6) as unconnected:
            connected.connect((host, 53))
            connected.send(b"query")
            unconnected.sendto(b"query", (host, 53))
            replies = [sock.recvfrom(512) for sock in (connected, unconnected)]
            return [(str(address(source)), source[0], said.decode()) for said, source in replies]

    assert stage.app(stage.a, ask).report() == [(text(stage.b.ip4), host, text(stage.b.ip4))] * 2


def test_connected_socket_that_asks_another_resolver_too(stage: Stage) -> None:
    def ask() -> Any:
        with udp(V4) as sock:
            sock.connect((stage.b.ip4, 53))
            sock.sendto(b"query", ("10.244.0.99", 53))
            said, source = sock.recvfrom(512)
            return address(sock.getpeername()), address(source), said.decode()

    peer, source, said = stage.app(stage.a, ask).report()
    assert str(peer) == text(stage.b.ip4)
    assert str(source) == said == text("10.244.0.99")


def test_connected_socket_that_sends_elsewhere(stage: Stage) -> None:
    """What is no DNS goes where it is sent, from the same socket."""

    def receive() -> Iterator[Any]:
        with udp(V4, stage.b.ip4, 5000) as receiver:
            yield "ready"
            yield receiver.recvfrom(100)[0]

    def send() -> Any:
        with udp(V4, stage.a.ip4, 0) as sock:
            sock.connect((stage.b.ip4, 53))
            sock.sendto(b"elsewhere", (stage.b.ip4, 5000))

    receiver = stage.app(stage.b, receive)
    receiver.passed()
    stage.app(stage.a, send).report()
    assert receiver.report() == b"elsewhere"


def test_many_sockets_are_told_apart(stage: Stage) -> None:
    def ask() -> Any:
        sockets = {f"10.244.0.{number}": udp(V4) for number in range(50, 150)}
        for host, sock in sockets.items():
            sock.connect((host, 53))
            sock.send(b"query")
        return [(host, sock.recv(512).decode()) for host, sock in sockets.items()]

    assert all(said == text(host) for host, said in stage.app(stage.a, ask).report())


def test_a_sender_that_is_gone_is_answered_by_the_last_resolver(stage: Stage) -> None:
    def deaf_proxy() -> Iterator[Any]:
        capture = Capture.open(stage.pins)
        with udp(V4, stage.b.ip4, ports.DNS) as unrelated, udp(V4, "127.0.0.1", ports.DNS) as sock:
            del unrelated
            yield "ready"
            _, source = sock.recvfrom(512)
            yield str(capture.dns_resolver(stage.b.cookie, address(source)))

    def ask() -> None:
        with udp(V4) as sock:
            sock.sendto(b"query", (stage.a.ip4, 53))

    stage.capture.enrol(stage.b.cookie)
    ztunnel = stage.ztunnel(stage.b, deaf_proxy)
    ztunnel.report()
    stage.app(stage.b, ask).report()
    assert ztunnel.next() == text(stage.a.ip4)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53"])
def test_a_resolver_on_loopback_is_left_alone(stage: Stage, host: str) -> None:
    def ask() -> Any:
        with udp(V4, host, 53) as resolver, udp(V4) as sock:
            sock.sendto(b"query", (host, 53))
            query, source = resolver.recvfrom(512)
            resolver.sendto(b"answer", source)
            return query, sock.recvfrom(512)

    assert stage.app(stage.a, ask).report() == (b"query", (b"answer", (host, 53)))


def test_pods_that_are_not_enrolled_ask_directly(stage: Stage) -> None:
    stage.capture.withdraw(stage.a.cookie)

    def resolve() -> Iterator[Any]:
        with udp(V4, stage.b.ip4, 53) as sock:
            yield "ready"
            query, source = sock.recvfrom(512)
            sock.sendto(query, source)
            yield source[0]

    def ask() -> Any:
        with udp(V4) as sock:
            sock.sendto(b"query", (stage.b.ip4, 53))
            return sock.recvfrom(512)

    resolver = stage.app(stage.b, resolve)
    resolver.passed()
    assert stage.app(stage.a, ask).report() == (b"query", (stage.b.ip4, 53))
    assert resolver.report() == stage.a.ip4


def test_the_proxy_asks_the_resolver_itself(stage: Stage) -> None:
    """From inside the pod, exempt."""

    def resolve() -> Iterator[Any]:
        with udp(V4, stage.b.ip4, 53) as sock:
            yield "ready"
            yield sock.recvfrom(512)[1][0]

    def forward() -> None:
        with udp(V4) as sock:
            sock.sendto(b"query", (stage.b.ip4, 53))

    resolver = stage.app(stage.b, resolve)
    resolver.passed()
    stage.ztunnel(stage.a, forward).report()
    assert resolver.report() == stage.a.ip4


def test_withdrawal_forgets_the_resolver(stage: Stage) -> None:
    def ask() -> None:
        with udp(V4) as sock:
            sock.sendto(b"query", (stage.b.ip4, 53))
            sock.recvfrom(512)

    stage.app(stage.a, ask).report()
    assert stage.capture.counts()["last_resolver"] == 1
    stage.capture.withdraw(stage.a.cookie)
    assert stage.capture.counts()["last_resolver"] == 0
    assert stage.capture.dns_resolver(stage.a.cookie, SocketAddress(Ip("127.0.0.1"), 40000)) is None
