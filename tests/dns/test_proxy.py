"""The DNS proxy on real sockets: an app on one side, resolvers on the other, all on loopback."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dnslib import RR, A, DNSRecord

from mesh.model.address import SocketAddress, canonical
from mesh.model.workload import ServiceKey
from tests.dns.asking import addresses, code, query
from tests.model.building import mesh, pod, service
from ztunnel.dns.resolve import Client, Zone
from ztunnel.worker import dns, dns_conversation, dns_exchange
from ztunnel.worker.dns import DnsProxy
from ztunnel.worker.dns_context import DnsContext
from ztunnel.worker.loop import Loop

HEARTBEAT = 0.01  # seconds: how soon the loop's thread sees what a test wants of it
PATIENCE = 10.0  # seconds after which a test that waits for a datagram fails
LARGE = ServiceKey("ns1/large.ns1.svc.cluster.local")
MANY = [f"10.7.{n // 250}.{n % 250 + 1}" for n in range(1000)]
STATE = mesh(
    service("web", "10.1.0.1", "fd00:1::1"),
    service("large"),
    *(pod(f"p{n}", ip, services={LARGE: {}}) for n, ip in enumerate(MANY)),
)


class Proxied:
    """A proxy whose loop runs on a thread of its own; `resolver` is where the app's queries were meant to go."""

    def __init__(self, family: int = socket.AF_INET) -> None:
        self.loop = Loop()
        self.resolver: SocketAddress | None = None
        self.host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        self._datagram = bound(family, socket.SOCK_DGRAM, self.host)
        self._listener = bound(family, socket.SOCK_STREAM, self.host)
        self.address = self._datagram.getsockname()[:2]
        self.stream_address = self._listener.getsockname()[:2]
        self.context = DnsContext(
            self.loop,
            STATE,
            Client("ns1"),
            Zone(),
            random.random,
            lambda family, kind: socket.socket(family, kind | socket.SOCK_NONBLOCK),
            lambda source, sock: self.resolver,
        )
        self.proxy = DnsProxy(self.context, [self._datagram], [self._listener])
        self._calls: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self.loop.run)
        self._beat()
        self._thread.start()

    def _beat(self) -> None:
        while self._calls:
            self._calls.pop(0)()
        self.loop.later(HEARTBEAT, self._beat)

    def call(self, function: Callable[[], Any]) -> Any:
        """On the loop's thread, as everything of the loop's must be."""
        done, results = threading.Event(), []
        self._calls.append(lambda: (results.append(function()), done.set()))  # type: ignore[func-returns-value]
        assert done.wait(PATIENCE)
        return results[0]

    def wait(self, condition: Callable[[], bool]) -> None:
        while not self.call(condition):
            pass

    def end(self) -> None:
        self.call(self.proxy.close)
        self.call(self.loop.stop)
        self._thread.join(PATIENCE)

    def app(self) -> socket.socket:
        """A connected UDP socket: hears only what leaves from where it asked."""
        return connected(socket.SOCK_DGRAM, self.address)

    def stream(self) -> socket.socket:
        return connected(socket.SOCK_STREAM, self.stream_address)


def bound(family: int, kind: int, host: str) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.bind((host, 0))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    sock.setblocking(False)
    return sock


def connected(kind: int, address: Any) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, kind)
    sock.settimeout(PATIENCE)
    sock.connect(address)
    return sock


def ask(sock: socket.socket, message: bytes) -> bytes:
    sock.send(message)
    return sock.recv(65535)


class Upstream:
    """A resolver under the control of a test."""

    def __init__(self, kind: int = socket.SOCK_DGRAM, host: str = "127.0.0.1") -> None:
        self.sock = bound(socket.AF_INET6 if ":" in host else socket.AF_INET, kind, host)
        self.sock.settimeout(PATIENCE)
        name = self.sock.getsockname()
        self.address = SocketAddress(canonical(name[0]), name[1])

    def hear(self) -> tuple[bytes, Any]:
        return self.sock.recvfrom(65535)


def answer_to(message: bytes, ip: str = "192.0.2.1", count: int = 1) -> bytes:
    reply = DNSRecord.parse(message).reply(aa=0)
    for _ in range(count):
        reply.add_answer(RR(reply.q.qname, rdata=A(ip)))
    return bytes(reply.pack())


@pytest.fixture
def proxied() -> Iterator[Proxied]:
    served = Proxied()
    yield served
    served.end()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    resolver = Upstream()
    yield resolver
    resolver.sock.close()


# --- UDP: what the mesh knows


def test_a_service_is_answered_without_a_resolver(proxied: Proxied) -> None:
    with proxied.app() as app:
        reply = ask(app, query("web.ns1.svc.cluster.local", number=42))
        assert DNSRecord.parse(reply).header.id == 42
        assert addresses(reply) == ["10.1.0.1"]
        assert addresses(ask(app, query("web", "AAAA"))) == ["fd00:1::1"]


def test_over_ipv6() -> None:
    served = Proxied(socket.AF_INET6)
    resolver = Upstream(host="::1")
    served.resolver = resolver.address
    try:
        with served.app() as app:
            assert addresses(ask(app, query("web"))) == ["10.1.0.1"]
            app.send(query("example.com"))
            heard, source = resolver.hear()
            resolver.sock.sendto(answer_to(heard), source)
            assert addresses(app.recv(512)) == ["192.0.2.1"]
    finally:
        served.end()
        resolver.sock.close()


def test_many_queries_at_once_are_all_answered(proxied: Proxied) -> None:
    with proxied.app() as app:
        for number in range(200):  # more than one turn takes
            app.send(query("web", number=number))
        heard = {DNSRecord.parse(app.recv(512)).header.id for _ in range(200)}
    assert heard == set(range(200))


def test_malformed_queries_get_a_format_error_and_junk_gets_nothing(proxied: Proxied) -> None:
    with proxied.app() as app:
        app.send(b"")
        app.send(b"junk")
        app.send(answer_to(query("web")))
        reply = ask(app, struct.pack("!HHHHHH", 9, 0x0100, 1, 0, 0, 0) + b"\x40\x00")
        assert (code(reply), DNSRecord.parse(reply).header.id) == ("FORMERR", 9)
        assert addresses(ask(app, query("web"))) == ["10.1.0.1"]


# --- UDP: the rest


def test_other_names_go_to_the_resolver_and_its_answer_to_the_app(proxied: Proxied, upstream: Upstream) -> None:
    proxied.resolver = upstream.address
    with proxied.app() as app:
        asked = query("example.com", "MX", number=1234)
        app.send(asked)
        heard, source = upstream.hear()
        assert heard[2:] == asked[2:]
        reply = answer_to(heard)
        upstream.sock.sendto(reply, source)
        assert app.recv(512) == asked[:2] + reply[2:]


def test_each_forwarded_query_has_a_number_and_a_port_of_its_own(proxied: Proxied, upstream: Upstream) -> None:
    proxied.resolver = upstream.address
    with proxied.app() as app:
        for _ in range(20):
            app.send(query("example.com", number=1))
        heard = [upstream.hear() for _ in range(20)]
    assert len({message[:2] for message, _ in heard}) > 15  # random: two may be the same
    assert len({source for _, source in heard}) == 20


def test_an_update_is_forwarded_as_it_is(proxied: Proxied, upstream: Upstream) -> None:
    proxied.resolver = upstream.address
    update = struct.pack("!HHHHHH", 7, 5 << 11, 1, 0, 1, 0) + query("zone.example", "SOA")[12:] + b"\0" * 11
    with proxied.app() as app:
        app.send(update)
        heard, source = upstream.hear()
        assert heard[2:] == update[2:]
        upstream.sock.sendto(heard[:2] + struct.pack("!H", 0x8000 | 5 << 11) + b"\0" * 8, source)
        assert app.recv(512) == update[:2] + struct.pack("!H", 0x8000 | 5 << 11) + b"\0" * 8


def test_only_the_resolver_itself_can_answer_and_only_what_was_asked(proxied: Proxied, upstream: Upstream) -> None:
    proxied.resolver = upstream.address
    with proxied.app() as app, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        app.send(query("example.com"))
        heard, source = upstream.hear()
        forger.sendto(answer_to(heard, "6.6.6.1"), source)
        wrong_number = (int.from_bytes(heard[:2], "big") ^ 1).to_bytes(2, "big") + heard[2:]
        upstream.sock.sendto(answer_to(wrong_number, "6.6.6.2"), source)
        upstream.sock.sendto(answer_to(heard[:2] + query("evil.example")[2:], "6.6.6.3"), source)
        upstream.sock.sendto(heard, source)
        upstream.sock.sendto(b"\0", source)
        upstream.sock.sendto(answer_to(heard), source)
        assert addresses(app.recv(512)) == ["192.0.2.1"]
        assert addresses(ask(app, query("web"))) == ["10.1.0.1"]  # nothing else came


def test_who_guesses_too_often_ends_the_query(proxied: Proxied, upstream: Upstream) -> None:
    proxied.resolver = upstream.address
    with proxied.app() as app:
        app.send(query("example.com"))
        heard, source = upstream.hear()
        wrong = (int.from_bytes(heard[:2], "big") ^ 1).to_bytes(2, "big") + heard[2:]
        for _ in range(dns_exchange.MAX_WRONG + 1):
            upstream.sock.sendto(answer_to(wrong), source)
        assert code(app.recv(512)) == "SERVFAIL"


def test_an_app_whose_resolver_nobody_knows_gets_a_failure(proxied: Proxied) -> None:
    with proxied.app() as app:
        assert code(ask(app, query("example.com"))) == "SERVFAIL"


def test_a_resolver_that_is_not_there_is_a_failure_at_once(proxied: Proxied, upstream: Upstream) -> None:
    proxied.resolver = upstream.address
    upstream.sock.close()
    with proxied.app() as app:
        reply = ask(app, query("example.com", number=3))
    assert (code(reply), DNSRecord.parse(reply).header.id) == ("SERVFAIL", 3)
    assert proxied.call(lambda: proxied.proxy.outstanding) == 0


def test_a_resolver_that_is_silent_is_a_failure_after_a_while(
    proxied: Proxied, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_exchange, "RESOLVER_TIMEOUT", 0.05)
    proxied.resolver = upstream.address
    with proxied.app() as app:
        assert code(ask(app, query("example.com"))) == "SERVFAIL"
    assert proxied.call(lambda: proxied.proxy.outstanding) == 0


def test_forwarded_queries_are_bounded_and_the_mesh_still_answers(
    proxied: Proxied, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "MAX_EXCHANGES", 2)
    proxied.resolver = upstream.address
    with proxied.app() as app:
        for number in (1, 2, 3):
            app.send(query("example.com", number=number))
        reply = app.recv(512)
        assert (code(reply), DNSRecord.parse(reply).header.id) == ("SERVFAIL", 3)
        assert proxied.call(lambda: proxied.context.counts["dns_refused"]) == 1
        assert addresses(ask(app, query("web"))) == ["10.1.0.1"]
        for _ in range(2):
            heard, source = upstream.hear()
            upstream.sock.sendto(answer_to(heard), source)
            assert code(app.recv(512)) == "NOERROR"
        app.send(query("example.com"))
        upstream.hear()


# --- large answers: UDP says so, TCP has them


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def read_message(sock: socket.socket) -> bytes:
    return read_exactly(sock, int.from_bytes(read_exactly(sock, 2), "big"))


def test_a_large_answer_is_truncated_over_udp_and_whole_over_tcp(proxied: Proxied) -> None:
    with proxied.app() as app, proxied.stream() as stream:
        short = ask(app, query("large", payload=1232))
        assert DNSRecord.parse(short).header.tc == 1
        assert 0 < len(addresses(short)) < len(MANY)
        stream.sendall(framed(query("large")))
        assert set(addresses(read_message(stream))) == set(MANY)


# --- TCP


def test_queries_may_come_in_any_pieces_and_many_at_a_time(proxied: Proxied) -> None:
    with proxied.stream() as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(query("web")):
            stream.send(bytes([byte]))
        assert addresses(read_message(stream)) == ["10.1.0.1"]
        stream.sendall(b"".join(framed(query("web", number=number)) for number in range(50)))
        assert [DNSRecord.parse(read_message(stream)).header.id for _ in range(50)] == list(range(50))


def test_an_app_that_says_it_is_done_still_gets_its_answers(proxied: Proxied) -> None:
    with proxied.stream() as stream:
        stream.sendall(framed(query("large")) + framed(query("web")))
        stream.shutdown(socket.SHUT_WR)
        assert len(addresses(read_message(stream))) == len(MANY)
        assert addresses(read_message(stream)) == ["10.1.0.1"]
        assert stream.recv(1) == b""
    proxied.wait(lambda: proxied.proxy.outstanding == 0)


@pytest.fixture
def stream_upstream() -> Iterator[Upstream]:
    resolver = Upstream(socket.SOCK_STREAM)
    yield resolver
    resolver.sock.close()


def accept(upstream: Upstream) -> socket.socket:
    sock, _ = upstream.sock.accept()
    sock.settimeout(PATIENCE)
    return sock


def test_other_names_go_to_the_resolver_over_one_connection(proxied: Proxied, stream_upstream: Upstream) -> None:
    proxied.resolver = stream_upstream.address
    with proxied.stream() as stream:
        stream.sendall(framed(query("a.example", number=1)) + framed(query("b.example", number=2)))
        with accept(stream_upstream) as resolver:
            first, second = read_message(resolver), read_message(resolver)
            stream.sendall(framed(query("web", number=3)))
            assert DNSRecord.parse(read_message(stream)).header.id == 3  # needs not wait for the resolver
            resolver.sendall(framed(answer_to(second)) + framed(answer_to(first, count=2000)))
            assert [DNSRecord.parse(read_message(stream)).header.id for _ in range(2)] == [2, 1]


def test_a_zone_transfer_of_many_messages_reaches_a_slow_app_whole(proxied: Proxied, stream_upstream: Upstream) -> None:
    proxied.resolver = stream_upstream.address
    part = b"\x00\x07\x84\x00" + os.urandom(60_000)
    with proxied.stream() as stream:
        stream.sendall(framed(query("zone.example", "AXFR", number=7)))
        with accept(stream_upstream) as resolver:
            read_message(resolver)
            sending = threading.Thread(target=resolver.sendall, args=(framed(part) * 200,))
            sending.start()
            assert all(read_message(stream) == part for _ in range(200))
            sending.join(PATIENCE)


def test_an_app_that_asks_but_does_not_read_holds_a_bounded_amount(proxied: Proxied) -> None:
    with proxied.stream() as stream:
        stream.setblocking(False)
        questions = framed(query("large")) * 400  # each makes an answer of 16 kB
        taken = stream.send(questions)
        for _ in range(20):  # until buffers are full on the way there and back
            proxied.call(lambda: None)
        waiting = proxied.call(lambda: max(len(each._app.outgoing) for each in proxied.proxy._conversations))
        assert waiting < dns_conversation.ROOM + 65537
        stream.setblocking(True)
        stream.settimeout(PATIENCE)
        for _ in range(taken // len(framed(query("large")))):
            assert len(read_message(stream)) > 16_000
        assert taken == len(questions)


def test_a_resolver_that_refuses_or_hangs_up_is_a_failure_and_is_tried_again(
    proxied: Proxied, stream_upstream: Upstream
) -> None:
    proxied.resolver = stream_upstream.address
    with proxied.stream() as stream:
        stream.sendall(framed(query("a.example", number=1)) + framed(query("b.example", number=2)))
        with accept(stream_upstream) as resolver:
            read_message(resolver)
        failures = [read_message(stream) for _ in range(2)]
        assert sorted(DNSRecord.parse(each).header.id for each in failures) == [1, 2]
        assert {code(each) for each in failures} == {"SERVFAIL"}
        stream.sendall(framed(query("c.example")))
        with accept(stream_upstream) as resolver:
            resolver.sendall(framed(answer_to(read_message(resolver))))
            assert addresses(read_message(stream)) == ["192.0.2.1"]
        stream_upstream.sock.close()
        stream.sendall(framed(query("d.example")))
        assert code(read_message(stream)) == "SERVFAIL"


def test_a_silent_resolver_is_a_failure_and_a_silent_app_is_hung_up_on(
    proxied: Proxied, stream_upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_conversation, "RESOLVER_TIMEOUT", 0.05)
    proxied.resolver = stream_upstream.address
    with proxied.stream() as stream:
        stream.sendall(framed(query("a.example", number=8)))
        reply = read_message(stream)
        assert (code(reply), DNSRecord.parse(reply).header.id) == ("SERVFAIL", 8)
        assert stream.recv(1) == b""


@pytest.mark.parametrize("junk", [b"\x00\x00", b"\x00\x04junk", framed(answer_to(query("web")))])
def test_an_app_that_sends_something_else_is_hung_up_on(proxied: Proxied, junk: bytes) -> None:
    with proxied.stream() as stream:
        stream.sendall(junk)
        assert stream.recv(1) == b""


def test_an_app_whose_resolver_nobody_knows_gets_a_failure_over_tcp_too(proxied: Proxied) -> None:
    with proxied.stream() as stream:
        stream.sendall(framed(query("example.com")))
        assert code(read_message(stream)) == "SERVFAIL"


def test_apps_at_once_are_bounded(proxied: Proxied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "MAX_CONVERSATIONS", 1)
    with proxied.stream() as first:
        first.sendall(framed(query("web")))
        read_message(first)
        with proxied.stream() as second:
            assert second.recv(1) == b""
    proxied.wait(lambda: proxied.proxy.outstanding == 0)
    with proxied.stream() as third:
        third.sendall(framed(query("web")))
        assert addresses(read_message(third)) == ["10.1.0.1"]


# --- the end


def test_closing_leaves_no_descriptor_behind(upstream: Upstream, stream_upstream: Upstream) -> None:
    before = set(os.listdir("/proc/self/fd"))
    served = Proxied()
    served.resolver = upstream.address
    with served.app() as app:
        app.send(query("example.com"))
        upstream.hear()
    served.resolver = stream_upstream.address
    with served.stream() as stream:
        stream.sendall(framed(query("example.com")))
        accept(stream_upstream).close()
    served.end()
    served.loop._epoll.close()
    assert set(os.listdir("/proc/self/fd")) == before
    assert served.proxy.outstanding == 0


def test_kinds_of_queries_are_counted(proxied: Proxied) -> None:
    with proxied.app() as app:
        ask(app, query("web"))
        ask(app, query("example.com"))
        ask(app, struct.pack("!HHHHHH", 9, 0x0100, 1, 0, 0, 0) + b"\x40\x00")
    counts = proxied.call(lambda: dict(proxied.context.counts))
    assert counts == {"dns_queries": 3, "dns_answered": 1, "dns_failed": 1, "dns_malformed": 1}
