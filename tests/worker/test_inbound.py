"""Port 15008 as a client sees it: who is refused at TLS, and which status answers which CONNECT."""

from __future__ import annotations

import socket
import ssl
from datetime import timedelta

import pytest

from mesh.model.address import SocketAddress
from mesh.model.policy import Action, Authorization, Clause, Match, MatchKind, PolicyScope, Rule, StringMatch
from mesh.model.workload import PortMapping, Service
from tests.identity.certificates_for_tests import Issuer
from tests.worker.hbone_client import HboneClient, refused, tls_socket
from tests.worker.node import Node, echo, read_all, reset, serving
from tests.worker.node import Worker as WorkerProcess

pytestmark = pytest.mark.root

PORT = 8080


@pytest.fixture
def server(node: Node) -> WorkerProcess:
    return node.worker(node.b)


@pytest.fixture
def client(node: Node, server: WorkerProcess) -> HboneClient:
    """With the certificate of pod a, from pod a."""
    return HboneClient(tls_socket(node.a, node.b, node.certificate(node.a.identity)))


# --- TLS


def test_another_authority_is_refused(node: Node, server: WorkerProcess) -> None:
    stranger = Issuer.root().identity(str(node.a.identity))
    assert refused(tls_socket(node.a, node.b, stranger))
    record = server.ended()
    assert record.flags == "TLS_FAILURE"
    assert "does not verify" in record.error


def test_no_certificate_is_refused(node: Node, server: WorkerProcess) -> None:
    assert refused(tls_socket(node.a, node.b, None))
    assert server.ended().flags == "TLS_FAILURE"


def test_another_trust_domain_is_refused_before_any_byte_of_http(node: Node, server: WorkerProcess) -> None:
    foreign = node.authority.identity("spiffe://other.example/ns/shop/sa/a")
    assert refused(tls_socket(node.a, node.b, foreign))
    record = server.ended()
    assert record.flags == "TLS_FAILURE"
    assert "not of trust domain cluster.local" in record.error


def test_an_expired_certificate_is_refused(node: Node, server: WorkerProcess) -> None:
    expired = node.certificate(node.a.identity, starts=timedelta(hours=-2), ends=timedelta(hours=-1))
    assert refused(tls_socket(node.a, node.b, expired))
    assert "expired" in server.ended().error


def test_a_certificate_without_spiffe_id_is_refused(node: Node, server: WorkerProcess) -> None:
    assert refused(tls_socket(node.a, node.b, node.authority.identity("https://example.com/")))
    assert "SPIFFE" in server.ended().error


def test_another_protocol_is_refused(node: Node, server: WorkerProcess) -> None:
    try:
        sock = tls_socket(node.a, node.b, node.certificate(node.a.identity), alpn="http/1.1")
    except (ssl.SSLError, ConnectionError):
        return
    assert refused(sock)


def test_plain_text_is_refused(node: Node, server: WorkerProcess) -> None:
    with node.a.dial_plainly(node.b.address(15008)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nhost: b\r\n\r\n")
        answer = b"-"
        try:
            answer = read_all(sock)
        except ConnectionError:
            answer = b""
    assert not answer.startswith(b"HTTP")
    assert server.ended().flags == "TLS_FAILURE"


def test_who_never_begins_is_cut(node: Node) -> None:
    server = node.worker(node.b, AMBIT_HANDSHAKE_TIMEOUT="200ms", AMBIT_PREFACE_TIMEOUT="200ms")
    with node.a.dial_plainly(node.b.address(15008)) as silent:
        assert refused(silent)
    assert "no TLS handshake within 0.2 s" in server.ended().error
    secured = tls_socket(node.a, node.b, node.certificate(node.a.identity))
    with pytest.raises((EOFError, ConnectionError)):
        HboneClientWithoutPreface(secured).read_to_end()


class HboneClientWithoutPreface:
    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._sock = sock

    def read_to_end(self) -> None:
        while self._sock.recv(65536):
            pass
        raise EOFError


def test_slow_handshakes_do_not_shut_others_out(node: Node) -> None:
    server = node.worker(node.b, AMBIT_MAX_HANDSHAKES="4")
    silent = [node.a.dial_plainly(node.b.address(15008)) for _ in range(20)]
    serving(node.b.listen(PORT), echo)
    client = HboneClient(tls_socket(node.a, node.b, node.certificate(node.a.identity)))
    stream = client.connect(f"{node.b.ip4}:{PORT}")
    assert client.status(stream) == 200
    assert server.describe().counters["inbound_handshakes"] <= 4
    for sock in silent:
        sock.close()


# --- statuses


def test_200_comes_when_the_app_has_accepted_and_names_the_workload(node: Node, client: HboneClient) -> None:
    serving(node.b.listen(PORT), echo)
    stream = client.connect(f"{node.b.ip4}:{PORT}")
    headers = client.headers(stream)
    assert headers[":status"] == "200"
    assert "k8s.namespace.name=shop" in headers["baggage"]
    client.send(stream, b"over", end=True)
    assert client.received(stream, 4) == b"over"
    client.wait_for_end(stream)


@pytest.mark.parametrize(
    ("method", "authority", "status"),
    [
        ("GET", "{b}:8080", 400),
        ("CONNECT", "{b}", 400),
        ("CONNECT", "{b}:0", 400),
        ("CONNECT", "{b}:99999", 400),
        ("CONNECT", "{a}:8080", 400),
        ("CONNECT", "10.1.2.3:8080", 400),
        ("CONNECT", "127.0.0.1:8080", 400),
        ("CONNECT", "nowhere.example:80", 503),
        ("CONNECT", "{b}:9", 503),
        ("CONNECT", "{b}:15001", 503),
        ("CONNECT", "{b}:15006", 503),
        ("CONNECT", "{b}:15008", 503),
        ("CONNECT", "{b}:15053", 503),
    ],
)
def test_what_is_no_request_for_this_pod_is_answered_and_nothing_is_dialled(
    node: Node, client: HboneClient, server: WorkerProcess, method: str, authority: str, status: int
) -> None:
    listener = node.b.listen(PORT)
    listener.settimeout(0.05)
    stream = client.connect(authority.format(a=node.a.ip4, b=node.b.ip4), method=method)
    assert client.status(stream) == status
    with pytest.raises(TimeoutError):
        listener.accept()
    assert server.ended().error


def test_a_hostname_of_a_service_of_this_pod_is_delivered(
    node: Node, client: HboneClient, server: WorkerProcess
) -> None:
    ports = (PortMapping(80, PORT),)
    service = Service("web", "shop", "web.shop.svc.cluster.local", ports=ports)
    server.update(node.b.workload(services={service.key: ports}), services=(service,))
    server.describe()
    serving(node.b.listen(PORT), echo)
    assert client.status(client.connect("web.shop.svc.cluster.local:80")) == 200
    assert client.status(client.connect("web.shop.svc.cluster.local:81")) == 503


def test_policy_denies_and_cuts(node: Node, client: HboneClient, server: WorkerProcess) -> None:
    serving(node.b.listen(PORT), echo)
    stream = client.connect(f"{node.b.ip4}:{PORT}")
    assert client.status(stream) == 200
    client.send(stream, b"x")
    assert client.received(stream, 1) == b"x"
    server.update(policies=(_only("cluster.local/ns/shop/sa/somebody-else"),))
    assert client.wait_for_reset(stream)
    cut = server.ended(lambda record: record.flags == "DENY")
    assert "policy" in cut.error
    assert client.status(client.connect(f"{node.b.ip4}:{PORT}")) == 401
    server.update(policies=(_only("cluster.local/ns/shop/sa/a"),))
    server.describe()
    assert client.status(client.connect(f"{node.b.ip4}:{PORT}")) == 200


def _only(principal: str) -> Authorization:
    match = Match(principals=(StringMatch(MatchKind.EXACT, principal),))
    return Authorization("only", "shop", PolicyScope.NAMESPACE, Action.ALLOW, (Rule((Clause((match,)),)),))


def test_an_app_that_listens_on_loopback_stays_private(node: Node, client: HboneClient) -> None:
    node.b.listen(PORT, host="127.0.0.1")
    assert client.status(client.connect(f"{node.b.ip4}:{PORT}")) == 503


def test_the_client_is_the_tunnels_source_whatever_it_says(
    node: Node, client: HboneClient, server: WorkerProcess
) -> None:
    serving(node.b.listen(PORT), echo)
    claims = [f'for="{node.a.ip4}:4242"', 'for="10.9.9.9:4242"', "nonsense"]
    for claim in claims:
        assert client.status(client.connect(f"{node.b.ip4}:{PORT}", ("forwarded", claim))) == 200
    server.wait(lambda: len(server.opened) == 3, "three connections")
    assert server.opened[0].source == SocketAddress(node.a.ip4, 4242)
    assert {record.source.ip for record in server.opened} == {node.a.ip4}


# --- streams


def test_early_data_waits_for_the_app(node: Node, client: HboneClient) -> None:
    serving(node.b.listen(PORT), echo)
    stream = client.connect(f"{node.b.ip4}:{PORT}")
    client.send(stream, b"before the 200", end=True)
    assert client.received(stream, 14) == b"before the 200"
    client.wait_for_end(stream)


def test_a_reset_app_is_a_reset_stream(node: Node, client: HboneClient) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(1)
        reset(sock)

    serving(node.b.listen(PORT), serve)
    stream = client.connect(f"{node.b.ip4}:{PORT}")
    assert client.status(stream) == 200
    client.send(stream, b"x")
    assert client.wait_for_reset(stream) == 10  # CONNECT_ERROR: RFC 9113 section 8.5


def test_writing_to_an_app_that_has_closed_resets_the_stream(node: Node, client: HboneClient) -> None:
    serving(node.b.listen(PORT), lambda sock: None)
    stream = client.connect(f"{node.b.ip4}:{PORT}")
    client.wait_for_end(stream)
    client.send(stream, b"x")
    client.send(stream, b"y")
    assert client.wait_for_reset(stream) == 10


def test_a_client_that_breaks_http_is_told_and_closed(node: Node, client: HboneClient, server: WorkerProcess) -> None:
    client._sock.sendall(b"\x00\x00\x01\x06\x00\x00\x00\x00\x00\x00")  # a PING of one byte
    assert client.wait_for_goaway().error_code != 0
    assert server.describe().counters["inbound_tunnels"] == 0
