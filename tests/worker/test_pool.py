"""Tunnels that the worker opens, as their other end sees them: shared, kept, left, and tried again."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mesh.model import ports
from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.workload import NetworkAddress, PortMapping, Service, WorkloadUid
from tests.identity.certificates_for_tests import Issuer
from tests.worker.hbone_server import HbonePeer, HboneServer, fields
from tests.worker.node import V6, Node, Worker, is_reset, reset, run
from ztunnel.feed import CertificateMissing, PodRemoved
from ztunnel.worker.pool import FRESH

pytestmark = pytest.mark.root

PORT = 8080
NOBODY = Ip("10.77.0.99")


@pytest.fixture
def server(node: Node) -> HboneServer:
    """The other end of what pod a dials at pod b, in the test's hands."""
    return HboneServer(node.b, node.certificate(node.b.identity))


def served(server: HboneServer) -> tuple[HbonePeer, int]:
    """The next tunnel and its first stream, answered."""
    peer = server.accept()
    stream = peer.request().stream_id
    assert stream is not None
    peer.answer(stream)
    return peer, stream


def test_a_connect_says_who_calls_from_where_and_why(node: Node, server: HboneServer) -> None:
    node.worker(node.a)
    app = node.a.dial(node.b.address(PORT))
    request = fields(server.accept().request())
    assert request[":method"] == "CONNECT"
    assert request[":authority"] == f"{node.b.ip4}:{PORT}"
    assert ":path" not in request
    assert "k8s.namespace.name=shop" in request["baggage"]
    assert "service.name=a" in request["baggage"]
    assert request["forwarded"] == f'for="{node.a.ip4}:{app.getsockname()[1]}"'
    assert request["traceparent"].startswith("00-")
    app.close()


def test_nothing_of_the_app_leaves_before_the_answer(node: Node, server: HboneServer) -> None:
    node.worker(node.a)
    with node.a.dial(node.b.address(PORT)) as app:
        app.sendall(b"secret")
        peer = server.accept()
        stream = peer.request().stream_id
        assert stream is not None
        peer.http.ping(b"12345678")
        peer.flush()
        while not any(type(event).__name__ == "PingAckReceived" for event in peer.events):
            peer.read()
        assert not any(type(event).__name__ == "DataReceived" for event in peer.events)
        peer.answer(stream)
        assert peer.received(stream, 6) == b"secret"


# --- payload together with CONNECT


@pytest.fixture
def busy(node: Node, server: HboneServer) -> Iterator[HbonePeer]:
    """The other end of a tunnel that carries a connection: `heard` makes sure that it has spoken just now."""
    node.worker(node.a)
    with node.a.dial(node.b.address(PORT)) as app:
        peer, stream = served(server)
        app.sendall(b"x")
        peer.received(stream, 1)
        yield peer


def dial_and_say(node: Node, peer: HbonePeer, data: bytes) -> tuple[socket.socket, int]:
    """A connection whose app has spoken before its CONNECT leaves: the worker is stopped meanwhile."""
    with node.workers[0].stopped():
        peer.http.ping(b"12345678")
        peer.flush()
        app = node.a.dial(node.b.address(PORT))
        app.sendall(data)
    stream = peer.request().stream_id
    assert stream is not None
    return app, stream


def test_payload_comes_with_connect_through_a_tunnel_that_serves(node: Node, busy: HbonePeer) -> None:
    app, stream = dial_and_say(node, busy, b"question")
    assert busy.received(stream, 8) == b"question"
    app.sendall(b", and more")
    busy.answer(stream)
    assert busy.received(stream, 18) == b"question, and more"
    busy.send(stream, b"answer")
    assert app.recv(6) == b"answer"
    app.close()


def test_a_refused_stream_is_opened_again_with_its_payload(node: Node, busy: HbonePeer) -> None:
    app, stream = dial_and_say(node, busy, b"question")
    assert busy.received(stream, 8) == b"question"
    busy.reset(stream, 7)
    again = busy.request().stream_id
    assert again is not None
    busy.answer(again)
    assert busy.received(again, 8) == b"question"
    busy.send(again, b"answer")
    assert app.recv(6) == b"answer"
    app.close()


def test_what_may_have_been_heard_is_not_said_twice(node: Node, server: HboneServer, busy: HbonePeer) -> None:
    app, stream = dial_and_say(node, busy, b"question")
    assert busy.received(stream, 8) == b"question"
    busy.kill()
    with pytest.raises(ConnectionResetError):
        app.recv(1)
    assert server.accept_nothing(0.3)


def test_a_tunnel_that_has_been_silent_gets_no_payload_before_its_answer(node: Node, busy: HbonePeer) -> None:
    time.sleep(FRESH + 0.05)
    with node.workers[0].stopped():
        app = node.a.dial(node.b.address(PORT))
        app.sendall(b"question")
    stream = busy.request().stream_id
    assert stream is not None
    time.sleep(0.05)
    busy.http.ping(b"12345678")
    busy.flush()
    while not any(type(event).__name__ == "PingAckReceived" for event in busy.events):
        busy.read()
    assert not any(type(e).__name__ == "DataReceived" and e.stream_id == stream for e in busy.events)  # type: ignore[attr-defined]
    busy.answer(stream)
    assert busy.received(stream, 8) == b"question"
    app.close()


@pytest.mark.parametrize("status", [401, 503])
def test_a_refusal_resets_the_app_whose_payload_was_early(node: Node, busy: HbonePeer, status: int) -> None:
    app, stream = dial_and_say(node, busy, b"question")
    assert busy.received(stream, 8) == b"question"
    busy.answer(stream, status, end=True)
    with pytest.raises(ConnectionResetError):
        app.recv(1)


@pytest.mark.parametrize("status", [401, 503])
def test_a_refusal_resets_the_app(node: Node, server: HboneServer, status: int) -> None:
    worker = node.worker(node.a)
    with node.a.dial(node.b.address(PORT)) as app:
        peer = server.accept()
        stream = peer.request().stream_id
        assert stream is not None
        peer.answer(stream, status, end=True)
        with pytest.raises(ConnectionResetError):
            app.recv(1)
    assert f"status {status}" in worker.ended().error


def test_who_does_not_answer_is_given_up(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a, AMBIT_RESPONSE_TIMEOUT="200ms")
    with node.a.dial(node.b.address(PORT)) as app:
        peer = server.accept()
        stream = peer.request().stream_id
        assert stream is not None
        with pytest.raises(ConnectionResetError):
            app.recv(1)
        assert peer.wait_for_reset(stream) == 8
    assert "no response to CONNECT" in worker.ended().error


def test_an_app_that_resets_while_it_waits_cancels_its_stream(node: Node, server: HboneServer) -> None:
    node.worker(node.a)
    app = node.a.dial(node.b.address(PORT))
    peer = server.accept()
    stream = peer.request().stream_id
    assert stream is not None
    app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    app.close()
    assert peer.wait_for_reset(stream) == 8


def test_another_identity_than_expected_is_refused(node: Node) -> None:
    worker = node.worker(node.a)
    impostor = HboneServer(node.b, node.certificate(SpiffeId("cluster.local", "shop", "impostor")))
    with node.a.dial(node.b.address(PORT)) as app:
        with pytest.raises((EOFError, OSError)):  # not one byte of HTTP/2 comes
            impostor.accept().read()
        with pytest.raises(ConnectionResetError):
            app.recv(1)
    record = worker.ended()
    assert record.flags == "TLS_FAILURE"
    assert "impostor" in record.error


def test_streams_go_where_the_fewest_are(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a, POOL_MAX_STREAMS_PER_CONNECTION="3")

    def dialled(peer: HbonePeer) -> socket.socket:
        app = node.a.dial(node.b.address(PORT))
        stream = peer.request().stream_id
        assert stream is not None
        peer.answer(stream)
        return app

    apps = [node.a.dial(node.b.address(PORT))]
    one, first = served(server)
    apps += [dialled(one), dialled(one), node.a.dial(node.b.address(PORT))]
    two, _ = served(server)
    apps[0].close()
    one.wait_for_end(first)
    one.end(first)
    assert worker.ended()  # two on this tunnel, one on the other
    apps += [dialled(two), dialled(one), dialled(two)]
    for app in apps:
        app.close()


def test_goaway_moves_connections_to_another_tunnel(node: Node, server: HboneServer) -> None:
    """What was not processed is opened again elsewhere; what stands goes on."""
    node.worker(node.a)
    first = node.a.dial(node.b.address(PORT))
    peer, stands = served(server)
    first.sendall(b"1")
    assert peer.received(stands, 1) == b"1"
    second = node.a.dial(node.b.address(PORT))
    assert peer.request().stream_id == stands + 2
    peer.go_away(stands)
    other, moved = served(server)
    second.sendall(b"2")
    assert other.received(moved, 1) == b"2"
    peer.send(stands, b"still")
    assert first.recv(5) == b"still"
    first.close()
    peer.end(stands)
    peer.wait_for_close()
    second.close()


def test_a_refused_stream_is_opened_again(node: Node, server: HboneServer) -> None:
    node.worker(node.a)
    with node.a.dial(node.b.address(PORT)) as app:
        peer = server.accept()
        stream = peer.request().stream_id
        assert stream is not None
        peer.reset(stream, 7)
        again = peer.request().stream_id
        assert again is not None
        peer.answer(again)
        peer.send(again, b"ok")
        assert app.recv(2) == b"ok"


def test_a_pooled_tunnel_that_has_died_is_replaced(node: Node, server: HboneServer) -> None:
    node.worker(node.a)
    app = node.a.dial(node.b.address(PORT))
    peer, stream = served(server)
    app.close()
    peer.wait_for_end(stream)
    peer.end(stream)
    peer.kill()
    with node.a.dial(node.b.address(PORT)) as app:
        other, stream = served(server)
        other.send(stream, b"ok")
        assert app.recv(2) == b"ok"


def test_a_tunnel_that_dies_resets_its_connections(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a)
    with node.a.dial(node.b.address(PORT)) as app:
        peer, stream = served(server)
        peer.send(stream, b"x")
        assert app.recv(1) == b"x"
        peer.kill()
        with pytest.raises(ConnectionResetError):
            app.recv(1)
    assert worker.ended().error


def test_a_dead_peer_costs_all_callers_one_time_out_together(node: Node) -> None:
    """Nobody answers SYNs: twenty callers share one attempt, instead of waiting one after another."""
    worker = node.worker(node.a, AMBIT_CONNECT_TIMEOUT="1s")
    dead = replace(node.b.workload(), uid=WorkloadUid("dead"), addresses=(NOBODY,))
    worker.update(dead)
    neighbour = ("ip", "-n", node.a.netns_name, "neigh", "replace", NOBODY, "lladdr", "02:00:00:00:00:99")
    run(*neighbour, "dev", "eth0")
    apps = [node.a.dial(SocketAddress(NOBODY, PORT)) for _ in range(20)]
    for app in apps:
        with pytest.raises(ConnectionResetError):
            app.recv(1)
    worker.wait(lambda: len(worker.closed) == 20, "twenty refusals")
    records = worker.closed
    assert {record.flags for record in records} == {"NETWORK_POLICY"}
    assert "15008" in records[0].error
    ends = [record.ended or 0.0 for record in records]
    assert max(ends) - min(ends) < 0.5  # of the same attempt; one after another they would end a second apart


def test_a_new_certificate_is_used_by_new_tunnels_and_old_ones_go_on(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a)
    first = node.a.dial(node.b.address(PORT))
    peer, stands = served(server)
    before = peer.sock.getpeercert(True)
    worker.certify(node.a.identity, node.certificate(node.a.identity))
    worker.describe()
    second = node.a.dial(node.b.address(PORT))
    other, _ = served(server)
    assert other.sock.getpeercert(True) != before
    peer.send(stands, b"still")
    assert first.recv(5) == b"still"
    first.close()
    second.close()
    peer.end(stands)
    peer.wait_for_close()


def test_an_unused_tunnel_is_released(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a, POOL_UNUSED_RELEASE_TIMEOUT="300ms", AMBIT_PING_INTERVAL="100ms")
    app = node.a.dial(node.b.address(PORT))
    peer, stream = served(server)
    app.close()
    peer.end(stream)
    peer.wait_for_close()
    assert worker.describe().counters["pool_tunnels"] == 0
    assert worker.describe().counters["pool_keys"] == 0


def test_a_peer_that_falls_silent_is_given_up(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a, AMBIT_PING_INTERVAL="100ms", AMBIT_PING_TIMEOUT="300ms")
    with node.a.dial(node.b.address(PORT)) as app:
        silent = served(server)
        with pytest.raises(ConnectionResetError):  # the test does not read, so it answers no PING
            app.recv(1)
    assert "PING" in worker.ended().error
    silent[0].kill()


def test_a_peer_that_answers_pings_is_kept(node: Node, server: HboneServer) -> None:
    node.worker(node.a, AMBIT_PING_INTERVAL="50ms", AMBIT_PING_TIMEOUT="10s")
    with node.a.dial(node.b.address(PORT)) as app:
        peer, stream = served(server)
        while sum(type(event).__name__ == "PingReceived" for event in peer.events) < 5:
            peer.read()
        peer.send(stream, b"ok")
        assert app.recv(2) == b"ok"


def test_without_a_certificate_nothing_is_dialled(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a)
    worker.tell(CertificateMissing(node.a.identity, "the CA says no"))
    worker.describe()
    assert is_reset(lambda: node.a.dial(node.b.address(PORT)))
    record = worker.ended()
    assert record.flags == "IDENTITY_ERROR"
    assert "the CA says no" in record.error
    assert server.accept_nothing(0.1)


def test_a_connection_waits_for_its_pods_workload_and_certificate(node: Node, server: HboneServer) -> None:
    worker = node.worker()
    worker.update(removed_workloads=(node.a.uid,))
    worker.serve(node.a)
    with node.a.dial(node.b.address(PORT)) as app:
        worker.describe()
        worker.update(node.a.workload())
        worker.describe()
        worker.certify(node.a.identity, node.certificate(node.a.identity))
        peer, stream = served(server)
        peer.send(stream, b"ok")
        assert app.recv(2) == b"ok"


def test_the_wait_is_bounded(node: Node) -> None:
    worker = node.worker(AMBIT_WORKLOAD_TIMEOUT="200ms")
    worker.update(removed_workloads=(node.a.uid,))
    worker.serve(node.a)
    assert is_reset(lambda: node.a.dial(node.b.address(PORT)))
    assert "does not know workload" in worker.ended().error


def test_what_nobody_captured_is_refused(node: Node) -> None:
    worker = node.worker(node.a)
    assert is_reset(lambda: node.a.dial_plainly(SocketAddress(Ip("127.0.0.1"), 15001)))
    assert "not captured" in worker.ended().error


def test_a_pod_that_left_takes_its_tunnels_with_it_when_they_are_unused(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a)
    app = node.a.dial(node.b.address(PORT))
    peer, stream = served(server)
    worker.tell(PodRemoved(node.a.uid, 0))
    worker.describe()
    peer.send(stream, b"still")
    assert app.recv(5) == b"still"
    app.close()
    peer.end(stream)
    peer.wait_for_close()
    with pytest.raises(ConnectionRefusedError):
        node.a.dial(node.b.address(PORT))


def test_another_authority_at_the_other_end_is_refused(node: Node) -> None:
    worker = node.worker(node.a)
    stranger = Issuer.root().identity(str(node.b.identity), roots=node.authority.pem)
    server = HboneServer(node.b, stranger)
    with node.a.dial(node.b.address(PORT)) as app:
        with contextlib.suppress(OSError):
            server.accept()
        with pytest.raises(ConnectionResetError):
            app.recv(1)
    assert worker.ended().flags == "TLS_FAILURE"


def test_a_tunnel_that_ends_late_does_not_take_its_successor_with_it(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a)
    first = node.a.dial(node.b.address(PORT))
    old, stream = served(server)
    old.go_away(stream)
    worker.wait(lambda: worker.describe().counters["pool_keys"] == 0, "the tunnel to be given up")
    second = node.a.dial(node.b.address(PORT))
    new, _ = served(server)
    first.close()
    old.end(stream)
    old.wait_for_close()
    worker.wait(lambda: worker.describe().counters["tunnels"] == 1, "the old tunnel's end")
    assert worker.describe().counters["pool_tunnels"] == 1
    third = node.a.dial(node.b.address(PORT))
    request = new.request()
    new.answer(request.stream_id)
    new.send(request.stream_id, b"ok")
    assert third.recv(2) == b"ok"
    second.close()


# --- many keys, one peer


def services_of(node: Node, worker: Worker, count: int) -> list[SocketAddress]:
    """Addresses that all lead to pod b, each expecting other identities there: so each has tunnels of its own."""
    vips = [Ip(f"10.96.1.{number}") for number in range(1, count + 1)]
    services = tuple(
        Service(
            f"s{vip}",
            "shop",
            f"s{vip}.shop.svc.cluster.local",
            (NetworkAddress("", vip),),
            (PortMapping(PORT, PORT),),
            (f"spiffe://cluster.local/ns/shop/sa/{vip.replace('.', '-')}",),
        )
        for vip in vips
    )
    worker.update(node.b.workload(services={service.key: service.ports for service in services}), services=services)
    worker.describe()
    return [SocketAddress(vip, PORT) for vip in vips]


def counted(worker: Worker, **wanted: int) -> None:
    def agrees() -> bool:
        counters = worker.describe().counters
        return {name: counters[name] for name in wanted} == wanted

    worker.wait(agrees, str(wanted))


def test_keys_of_one_peer_take_turns(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a, AMBIT_MAX_DIALS_PER_PEER="3")
    apps = [node.a.dial(address) for address in services_of(node, worker, 10)]
    counted(worker, pool_dials=3, pool_dials_waiting=7, pool_waiting=10)
    peers = [served(server) for _ in apps]  # each one that is through lets another begin
    counted(worker, pool_dials=0, pool_dials_waiting=0, pool_waiting=0, pool_tunnels=10)
    for peer, stream in peers:
        peer.send(stream, b"ok")
    assert [app.recv(2) for app in apps] == [b"ok"] * 10


def test_another_peer_need_not_wait_for_its_turn(node: Node) -> None:
    silent = node.b.listen(ports.HBONE)
    worker = node.worker(node.a, AMBIT_MAX_DIALS_PER_PEER="1")
    stuck = [node.a.dial(address) for address in services_of(node, worker, 3)]
    counted(worker, pool_dials=1, pool_dials_waiting=2)
    other = HboneServer(node.b, node.certificate(node.b.identity), V6)
    with node.a.dial(node.b.address(PORT, V6)) as app:
        peer, stream = served(other)
        peer.send(stream, b"ok")
        assert app.recv(2) == b"ok"
    for each in (*stuck, silent):
        each.close()


def test_the_wait_for_a_turn_is_bounded(node: Node) -> None:
    node.b.listen(ports.HBONE)  # shakes no hands
    worker = node.worker(
        node.a, AMBIT_MAX_DIALS_PER_PEER="1", AMBIT_CONNECT_TIMEOUT="300ms", AMBIT_HANDSHAKE_TIMEOUT="2s"
    )
    apps = [node.a.dial(address) for address in services_of(node, worker, 3)]
    for app in apps:
        with pytest.raises(ConnectionResetError):
            app.recv(1)
    worker.wait(lambda: len(worker.closed) == 3, "three refusals")
    assert sorted("were being dialled" in record.error for record in worker.closed) == [False, True, True]
    counted(worker, pool_dials=0, pool_dials_waiting=0, pool_keys=0)


def test_who_gave_up_while_waiting_for_a_turn_costs_the_peer_nothing(node: Node, server: HboneServer) -> None:
    worker = node.worker(node.a, AMBIT_MAX_DIALS_PER_PEER="1")
    first, *others = [node.a.dial(address) for address in services_of(node, worker, 5)]
    counted(worker, pool_dials=1, pool_dials_waiting=4)
    for app in others:
        reset(app)
    worker.wait(lambda: len(worker.closed) == 4, "four to give up")
    peer, stream = served(server)
    peer.send(stream, b"ok")
    assert first.recv(2) == b"ok"
    counted(worker, pool_dials=0, pool_dials_waiting=0, pool_keys=1)
    assert server.accept_nothing(0.1)
