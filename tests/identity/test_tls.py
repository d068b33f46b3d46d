"""Real handshakes in memory: who gets through, who does not, and what both sides then know."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.identity.errors import PeerRejected, TlsClosed, TlsFailed
from mesh.identity.peers import check_client, check_server
from mesh.identity.session import RECEIVE_SIZE, ciphertext
from mesh.identity.tls import TlsIdentity, TlsSession, client_context, server_context
from mesh.model.identity import SpiffeId
from tests.identity.certificates_for_tests import Issuer
from tests.identity.python_tls import PythonTls
from tests.identity.python_tls import client_context as python_context

WEB = "spiffe://cluster.local/ns/shop/sa/web"
CART = "spiffe://cluster.local/ns/shop/sa/cart"
ROOT = Issuer.root()
SERVER = ROOT.identity(CART)
CLIENT = ROOT.identity(WEB)


Session = TlsSession | PythonTls


def feed(session: Session, received: bytes | bytearray | memoryview) -> None:
    if isinstance(session, PythonTls):
        session.feed(received)
        return
    for at in range(0, len(received), RECEIVE_SIZE):
        piece = received[at : at + RECEIVE_SIZE]
        ciphertext[: len(piece)] = piece
        session.feed(len(piece))


def pump(one: Session, other: Session) -> None:
    while one.pending_out or other.pending_out:
        if one.pending_out:
            feed(other, one.take_out())
        if other.pending_out:
            feed(one, other.take_out())


def shake(client: Session, server: Session) -> None:
    """Both sides' handshakes to the end, alerts included; raises what the first side that fails raises."""
    for _ in range(4):
        for side, peer in ((client, server), (server, client)):
            try:
                side.handshake()
            finally:
                if side.pending_out:
                    feed(peer, side.take_out())
    assert client.handshake()
    assert server.handshake()


def sessions(client: TlsIdentity = CLIENT, server: TlsIdentity = SERVER) -> tuple[TlsSession, TlsSession]:
    return TlsSession(client_context(client), server=False), TlsSession(server_context(server), server=True)


def connected() -> tuple[TlsSession, TlsSession]:
    client, server = sessions()
    shake(client, server)
    return client, server


def read_all(session: TlsSession, room: int = 1 << 18) -> bytes:
    buffer, whole = memoryview(bytearray(room)), b""
    while size := session.read_into(buffer):
        whole += buffer[:size]
    return whole


def test_both_sides_learn_who_the_other_is() -> None:
    client, server = connected()
    assert str(client.peer_identity()) == CART
    assert str(server.peer_identity()) == WEB


def test_first_parseable_uri_is_the_identity_and_others_are_kept() -> None:
    other = "spiffe://elsewhere.example/ns/a/sa/b"
    client, server = sessions(client=ROOT.identity("https://x.example/", "spiffe://too/short", other, WEB))
    shake(client, server)
    assert str(server.peer_identity()) == other
    assert [str(identity) for identity in server.peer_identities()] == [other, WEB]


def test_a_peer_without_spiffe_id_has_no_identity() -> None:
    client, server = sessions(client=ROOT.identity("https://x.example/"))
    shake(client, server)
    assert server.peer_identities() == ()
    with pytest.raises(PeerRejected, match="no SPIFFE ID"):
        server.peer_identity()


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (Issuer.root("another CA").identity(WEB, roots=ROOT.pem), "unable to get local issuer certificate"),
        (ROOT.identity(WEB, starts=timedelta(hours=-2), ends=timedelta(hours=-1)), "expired"),
        (ROOT.identity(WEB, starts=timedelta(minutes=30)), "not yet valid"),
        (ROOT.identity(WEB, usages=(ExtendedKeyUsageOID.SERVER_AUTH,)), "certificate purpose"),
    ],
    ids=["other CA", "expired", "not yet valid", "not for clients"],
)
def test_server_refuses_a_bad_client_and_the_client_learns_it(client: TlsIdentity, words: str) -> None:
    mine, server = sessions(client=client)
    with pytest.raises(TlsFailed, match=words):
        shake(mine, server)
    pump(mine, server)
    with pytest.raises(TlsFailed, match="alert"):
        read_all(mine)


def test_client_refuses_a_server_of_another_ca() -> None:
    client, server = sessions(server=Issuer.root("another CA").identity(CART, roots=ROOT.pem))
    with pytest.raises(TlsFailed, match="does not verify"):
        shake(client, server)


def test_a_client_without_certificate_is_refused(tmp_path: Path) -> None:
    client, server = PythonTls(python_context(None, tmp_path, ROOT.pem)), sessions()[1]
    with pytest.raises(TlsFailed, match="did not return a certificate"):
        shake(client, server)


def test_tls_1_2_is_refused(tmp_path: Path) -> None:
    context = python_context(CLIENT, tmp_path, ROOT.pem)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(TlsFailed, match="unsupported protocol"):
        shake(PythonTls(context), sessions()[1])


def test_a_peer_that_offers_another_protocol_is_refused_with_an_alert(tmp_path: Path) -> None:
    context = python_context(CLIENT, tmp_path, ROOT.pem)
    context.set_alpn_protocols(["http/1.1", "h2c"])
    client, server = PythonTls(context), sessions()[1]
    with pytest.raises(TlsFailed, match="no application protocol"):
        shake(client, server)
    with pytest.raises(TlsFailed, match="alert no application protocol"):
        client.handshake()


def test_a_peer_that_offers_no_protocol_is_refused(tmp_path: Path) -> None:
    context = python_context(CLIENT, tmp_path, ROOT.pem)
    context.set_alpn_protocols([])
    with pytest.raises(TlsFailed, match="ALPN h2"):
        shake(PythonTls(context), sessions()[1])


def test_no_server_name_is_sent() -> None:
    client, _ = sessions()
    assert not client.handshake()
    assert b"cluster.local" not in bytes(client.take_out())


def test_nothing_can_be_resumed(tmp_path: Path) -> None:
    context = python_context(CLIENT, tmp_path, ROOT.pem)
    first, server = PythonTls(context), sessions()[1]
    shake(first, server)
    first.take_news()
    ticket = first.tls.session
    assert ticket is not None
    second, server = PythonTls(context, ticket), sessions()[1]
    shake(second, server)
    assert not second.tls.session_reused
    assert str(server.peer_identity()) == WEB, "the second connection has proved itself too"


def test_several_roots_are_all_trusted() -> None:
    new = Issuer.root("the next root")
    both = ROOT.pem + new.pem
    shake(*sessions(client=new.identity(WEB, roots=both), server=ROOT.identity(CART, roots=both)))


def test_chains_through_an_intermediate() -> None:
    between = ROOT.intermediate()
    chain, key = between.leaf(WEB)
    client, server = sessions(client=TlsIdentity(chain + between.pem, key, ROOT.pem))
    shake(client, server)
    assert str(server.peer_identity()) == WEB


def test_unusable_pem_is_told() -> None:
    for broken in (
        TlsIdentity(b"", CLIENT.private_key, ROOT.pem),
        TlsIdentity(CLIENT.chain, SERVER.private_key, ROOT.pem),
        TlsIdentity(CLIENT.chain, CLIENT.private_key, b"no certificate"),
    ):
        with pytest.raises(TlsFailed, match="cannot be used"):
            client_context(broken)


def test_contexts_are_made_once_per_identity_and_leave_no_descriptor() -> None:
    identity = ROOT.identity(WEB)
    before = len(os.listdir("/proc/self/fd"))
    assert client_context(identity) is client_context(identity)
    assert server_context(identity) is server_context(identity)
    assert len(os.listdir("/proc/self/fd")) == before


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=70_000), max_size=4), st.integers(1, 40_000), st.integers(1, 90_000))
def test_payload_arrives_whole_however_it_is_cut(writes: list[bytes], cut: int, room: int) -> None:
    client, server = connected()
    for payload in writes:
        client.write(payload)
    wire, received = client.take_out(), b""
    for start in range(0, len(wire), cut):
        feed(server, wire[start : start + cut])
        received += read_all(server, room)
    assert received == b"".join(writes)


def test_one_read_takes_all_records_that_are_there() -> None:
    client, server = connected()
    client.write(bytes(100_000))
    feed(server, client.take_out())
    assert server.read_into(memoryview(bytearray(1 << 18))) == 100_000
    assert server.read_into(memoryview(bytearray(1 << 18))) == 0


def test_close_notify_comes_after_the_last_byte() -> None:
    client, server = connected()
    client.write(b"last words")
    client.close()
    feed(server, client.take_out())
    buffer = memoryview(bytearray(100))
    assert server.read_into(buffer) == 10
    with pytest.raises(TlsClosed):
        server.read_into(buffer)


def test_the_end_of_the_transport_is_a_close() -> None:
    client, server = connected()
    client.write(b"last words")
    feed(server, client.take_out())
    server.feed_eof()
    buffer = memoryview(bytearray(100))
    assert server.read_into(buffer) == 10
    assert server.ended, "nothing else tells of it"
    for _ in range(2):
        with pytest.raises(TlsClosed):
            server.read_into(buffer)


def test_the_end_of_the_transport_fails_a_handshake() -> None:
    _, server = sessions()
    server.feed_eof()
    with pytest.raises(TlsFailed, match="closed"):
        server.handshake()


def test_a_spoilt_record_fails_and_goes_on_failing() -> None:
    client, server = connected()
    client.write(b"good")
    client.write(b"spoilt")
    wire = bytearray(client.take_out())
    wire[-1] ^= 1
    feed(server, wire)
    buffer = memoryview(bytearray(100))
    assert server.read_into(buffer) == 4
    for _ in range(2):
        with pytest.raises(TlsFailed):
            server.read_into(buffer)
    assert server.pending_out, "the peer is told by an alert"


@given(st.binary(min_size=1, max_size=500))
def test_garbage_instead_of_a_handshake_only_ever_fails(garbage: bytes) -> None:
    _, server = sessions()
    feed(server, garbage)
    server.feed_eof()
    with pytest.raises(TlsFailed):
        server.handshake()


def ids(*uris: str) -> list[SpiffeId]:
    return [SpiffeId.parse(uri) for uri in uris]


def test_server_side_check_is_of_the_trust_domain() -> None:
    foreign = "spiffe://other.example/ns/a/sa/b"
    assert str(check_client(ids(WEB), "cluster.local")) == WEB
    assert str(check_client(ids(foreign, WEB), "cluster.local")) == foreign
    with pytest.raises(PeerRejected, match=r"not of trust domain cluster\.local"):
        check_client(ids(foreign), "cluster.local")
    with pytest.raises(PeerRejected, match="no SPIFFE ID"):
        check_client([], "cluster.local")


def test_client_side_check_is_of_the_expected_identities() -> None:
    assert str(check_server(ids(CART), ids(WEB, CART))) == CART
    for presented, expected in ((ids(CART), []), (ids(CART), ids(WEB)), ([], ids(WEB)), ([], [])):
        with pytest.raises(PeerRejected, match="expected"):
            check_server(presented, expected)


def test_a_worker_gets_tls_without_the_weight_of_the_control_plane() -> None:
    """A worker is a small process: what it needs for tunnels brings neither protobuf, gRPC, X.509 objects nor a second
    OpenSSL."""
    script = (
        "import sys, mesh.identity.tls, mesh.identity.peers\n"
        "heavy = {'google.protobuf', 'grpc', 'cryptography.x509', 'asyncio', 'ssl', '_hashlib'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        ("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
    ],
)
def test_aes_256_gcm_is_chosen_where_it_is_offered(tmp_path: Path, offered: str, chosen: str) -> None:
    """With openssl's own client, because Python cannot choose the suites of TLS 1.3."""
    (tmp_path / "me.pem").write_bytes(CLIENT.chain + CLIENT.private_key)
    listener = socket.create_server(("127.0.0.1", 0))
    target = f"127.0.0.1:{listener.getsockname()[1]}"
    command = ["openssl", "s_client", "-connect", target, "-cert", "me.pem", "-ciphersuites", offered, "-alpn", "h2"]
    client = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        connection, _ = listener.accept()
        session = sessions()[1]
        with connection:
            connection.settimeout(20)
            while not session.handshake():
                connection.sendall(session.take_out())
                feed(session, connection.recv(1 << 16))
    finally:
        listener.close()
        said, _ = client.communicate(timeout=20)
    assert f"Cipher is {chosen}".encode() in said


def test_queues_that_have_grown_are_given_back_and_nothing_is_lost() -> None:
    client, server = connected()
    payload = os.urandom(1 << 20)
    for _ in range(3):
        for start in range(0, len(payload), 1 << 18):
            client.write(payload[start : start + (1 << 18)])
            feed(server, client.take_out())
        assert read_all(server) == payload
        for _ in range(3):
            client.tidy()
            server.tidy()
        client.write(b"x" * 100)
        client.tidy()  # with something queued
        feed(server, client.take_out())
        server.tidy()
        assert read_all(server) == b"x" * 100
