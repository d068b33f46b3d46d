"""Apps that know nothing of the mesh: what they dial is captured by the kernel, and what they see is what they would
see without a mesh."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from mesh.model.address import Ip, SocketAddress
from mesh.model.policy import Action, Authorization, Clause, Match, MatchKind, PolicyScope, Rule, StringMatch
from mesh.model.workload import TunnelProtocol
from tests.worker.captured import CapturedNode
from tests.worker.node import V4, V6, echo, in_background, is_reset, read_all, reset, serving

pytestmark = pytest.mark.root

PORT = 8080
both_families = pytest.mark.parametrize("family", [V4, V6], ids=["v4", "v6"])


def names(sock: socket.socket) -> tuple[SocketAddress, SocketAddress]:
    """Own and peer's address as the app sees them."""
    own, peer = sock.getsockname(), sock.getpeername()
    return SocketAddress(Ip(own[0]), own[1]), SocketAddress(Ip(peer[0]), peer[1])


def accepted(listener: socket.socket, dial: Callable[[], socket.socket]) -> tuple[socket.socket, socket.socket, str]:
    """A connection from both ends, and the client's IP as accept() tells it."""
    client = dial()
    client.sendall(b"x")
    server, address = listener.accept()
    server.settimeout(20)
    assert server.recv(1) == b"x"
    return client, server, address[0]


@both_families
def test_enrolled_pods_talk_through_a_tunnel_and_see_each_other(captured: CapturedNode, family: int) -> None:
    client_worker, _ = captured.worker(captured.a), captured.worker(captured.b)
    target = captured.b.address(PORT, family)
    client, server, seen = accepted(captured.b.listen(PORT, family), lambda: captured.a.dial(target))
    assert names(client)[1] == target
    assert names(server)[0] == target
    assert seen == captured.a.ip(family)
    assert names(server)[1] == SocketAddress(captured.a.ip(family), names(client)[0].port)
    server.sendall(b"answer")
    server.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"answer"
    client.close()
    server.close()
    assert client_worker.ended().protocol == "HBONE"


@both_families
def test_an_outsider_is_served_in_plain_text_and_seen_as_itself(captured: CapturedNode, family: int) -> None:
    worker = captured.worker(captured.a)
    worker.update(captured.b.workload(tunnel_protocol=TunnelProtocol.NONE))
    listener = captured.a.listen(PORT, family)
    client, server, seen = accepted(listener, lambda: captured.b.dial(captured.a.address(PORT, family)))
    assert seen == captured.b.ip(family)
    assert names(server) == (captured.a.address(PORT, family), names(client)[0])
    server.sendall(b"answer")
    assert client.recv(6) == b"answer"
    client.shutdown(socket.SHUT_WR)
    assert read_all(server) == b""
    server.close()
    assert read_all(client) == b""
    record = worker.ended()
    assert (record.direction, record.protocol, record.sent, record.received) == ("inbound", "TCP", 1, 6)
    assert record.source.ip == captured.b.ip(family)


def test_a_plain_connection_is_reset_both_ways(captured: CapturedNode) -> None:
    captured.worker(captured.a)
    listener = captured.a.listen(PORT)
    client, server, _ = accepted(listener, lambda: captured.b.dial(captured.a.address(PORT)))
    reset(server)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    client, server, _ = accepted(listener, lambda: captured.b.dial(captured.a.address(PORT)))
    reset(client)
    with pytest.raises(ConnectionResetError):
        server.recv(1)


def test_a_plain_connection_to_a_closed_port_is_reset(captured: CapturedNode) -> None:
    worker = captured.worker(captured.a)
    assert is_reset(lambda: captured.b.dial(captured.a.address(9)))
    assert worker.ended().flags == "CONNECT"


def test_plain_text_is_denied_where_policy_asks_for_an_identity(captured: CapturedNode) -> None:
    worker = captured.worker(captured.a)
    listener = captured.a.listen(PORT)
    client, server, _ = accepted(listener, lambda: captured.b.dial(captured.a.address(PORT)))
    nobody = Match(not_principals=(StringMatch(MatchKind.PRESENCE),))
    strict = Authorization("strict", "shop", PolicyScope.NAMESPACE, Action.DENY, (Rule((Clause((nobody,)),)),))
    worker.update(policies=(strict,))
    with pytest.raises(ConnectionResetError):  # what stood is cut
        client.recv(1)
    assert is_reset(lambda: captured.b.dial(captured.a.address(PORT)))
    assert worker.ended(lambda record: record.error.startswith("policy")).flags == "DENY"
    server.close()


@both_families
def test_an_app_reaches_what_is_not_in_the_mesh(captured: CapturedNode, family: int) -> None:
    worker = captured.worker(captured.a)
    worker.update(removed_workloads=(captured.b.uid,))
    target = captured.b.address(PORT, family)
    client, server, seen = accepted(captured.b.listen(PORT, family), lambda: captured.a.dial(target))
    assert names(client)[1] == target
    assert seen == captured.a.ip(family)
    client.close()
    server.close()
    assert worker.ended().protocol == "TCP"


@both_families
def test_an_app_reaches_itself(captured: CapturedNode, family: int) -> None:
    captured.worker(captured.a)
    target = captured.a.address(PORT, family)
    client, server, seen = accepted(captured.a.listen(PORT, family), lambda: captured.a.dial(target))
    assert names(client)[1] == target
    assert seen == captured.a.ip(family)
    client.close()
    server.close()


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
@pytest.mark.parametrize("whom", ["loopback", "itself", "peer"])
def test_dialling_proxies_ends_at_once_and_never_loops(captured: CapturedNode, whom: str, port: int) -> None:
    workers = captured.worker(captured.a), captured.worker(captured.b)
    ip = {"loopback": Ip("127.0.0.1"), "itself": captured.a.ip4, "peer": captured.b.ip4}[whom]
    try:
        with captured.a.dial(SocketAddress(ip, port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = read_all(client)
    except (ConnectionRefusedError, ConnectionResetError):
        answer = b""
    assert len(answer) < 100  # an alert of TLS or DNS at most
    for worker in workers:
        assert worker.describe().counters["connections"] == 0
        assert len(worker.opened) <= 1


def test_a_killed_worker_means_refused_never_plain(captured: CapturedNode) -> None:
    worker, _ = captured.worker(captured.a), captured.worker(captured.b)
    serving(captured.b.listen(PORT), echo)
    worker.stop()
    with pytest.raises(ConnectionRefusedError):
        captured.a.dial(captured.b.address(PORT))


def test_the_kernels_maps_are_as_small_after_a_thousand_connections(captured: CapturedNode) -> None:
    client, _ = captured.worker(captured.a), captured.worker(captured.b)
    serving(captured.b.listen(PORT), echo)
    assert captured.capture is not None
    before = captured.capture.counts()
    for _ in range(10):
        apps = [captured.a.dial(captured.b.address(PORT)) for _ in range(100)]
        for app in apps:
            app.sendall(b"x")
        assert all(app.recv(1) == b"x" for app in apps)
        for app in apps:
            app.close()
    client.wait(lambda: len(client.closed) == 1000, "all to be closed")
    assert captured.capture.counts() == before


def test_dns_is_answered_from_the_mesh_and_else_forwarded(captured: CapturedNode) -> None:
    from dnslib import DNSRecord

    from mesh.model.workload import NetworkAddress, PortMapping, Service

    worker = captured.worker(captured.a)
    service = Service(
        "web",
        "shop",
        "web.shop.svc.cluster.local",
        (NetworkAddress("", Ip("10.96.0.7")),),
        (PortMapping(80, PORT),),
    )
    worker.update(services=(service,))
    worker.describe()
    resolver = captured.b.socket(V4, socket.SOCK_DGRAM)
    resolver.bind((captured.b.ip4, 53))

    def resolve() -> None:
        data, source = resolver.recvfrom(512)
        reply = DNSRecord.parse(data).reply()
        resolver.sendto(reply.pack(), source)

    in_background(resolve)
    with captured.a.socket(V4, socket.SOCK_DGRAM) as app:
        app.connect((captured.b.ip4, 53))
        app.send(DNSRecord.question("web.shop.svc.cluster.local").pack())
        assert str(DNSRecord.parse(app.recv(512)).short()) == "10.96.0.7"
        app.send(DNSRecord.question("elsewhere.example").pack())
        assert DNSRecord.parse(app.recv(512)).rr == []
    resolver.close()
    assert worker.describe().counters["dns_forwarded"] == 1
