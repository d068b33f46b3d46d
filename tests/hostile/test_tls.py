"""What TLS 1.3 lets a peer try: early data, a handshake in the handshake's place no more, handshakes without end."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from mesh.model import ports
from tests.hostile.arena import Arena, wait
from tests.hostile.attacker import OPENING, Attacker
from tests.worker.hbone_client import tls_socket
from tests.worker.node import PATIENCE, in_background

pytestmark = pytest.mark.root

MOST_MIB = 8.0
HANDSHAKE, APPLICATION_DATA, ALERT = 22, 23, 21
UNEXPECTED_MESSAGE = 10
TICKETS = 4433  # where a server of openssl's gives out sessions that allow early data


# --- early data


@pytest.fixture
def pem(arena: Arena, tmp_path: Path) -> Path:
    path = tmp_path / "identity.pem"
    path.write_bytes(arena.identity.chain + b"\n" + arena.identity.private_key)
    return path


def in_pod(arena: Arena, *command: str | Path) -> list[str | Path]:
    return ["nsenter", f"--net=/run/netns/{arena.node.a.netns_name}", *command]


@pytest.fixture
def session(arena: Arena, pem: Path, tmp_path: Path) -> Iterator[Path]:
    """A session that allows early data. Our server gives none, so it is another server's: a client may try it."""
    path = tmp_path / "session.pem"
    serve = ["openssl", "s_server", "-accept", f"127.0.0.1:{TICKETS}", "-cert", pem, "-key", pem, "-alpn", "h2"]
    ask = ["openssl", "s_client", "-connect", f"127.0.0.1:{TICKETS}", "-alpn", "h2", "-tls1_3", "-sess_out", path]
    server = subprocess.Popen(
        in_pod(arena, *serve, "-early_data", "-quiet"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    client: subprocess.Popen[bytes] | None = None

    def asked() -> bool:
        nonlocal client
        if client is None or client.poll() is not None:
            client = subprocess.Popen(
                in_pod(arena, *ask), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        return path.exists() and path.read_bytes().endswith(b"-----END SSL SESSION PARAMETERS-----\n")

    try:
        wait(asked, "a session with a ticket")
        yield path
    finally:
        for process in (client, server):
            if process is not None:
                process.kill()
                process.communicate()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl's client is what can send early data")
def test_early_data_is_not_even_read(arena: Arena, pem: Path, session: Path, tmp_path: Path) -> None:
    """It could be replayed: whoever sends it is asked for a whole handshake, and may go on after that."""
    early = tmp_path / "early"
    early.write_bytes(OPENING)
    command = ["openssl", "s_client", "-connect", f"{arena.node.b.ip4}:{ports.HBONE}", "-alpn", "h2", "-tls1_3"]
    with arena.attack(MOST_MIB):
        client = subprocess.Popen(
            in_pod(arena, *command, "-cert", pem, "-key", pem, "-sess_in", session, "-early_data", early),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said = bytearray()
        assert client.stdout is not None
        while b"---\nread R BLOCK" not in said and b"Early data" not in said:
            piece = client.stdout.read1(1 << 16)  # type: ignore[attr-defined]
            assert piece, said.decode(errors="replace")
            said += piece
        client.kill()
        client.communicate()
    assert b"Early data was rejected" in said
    assert b"New, TLSv1.3" in said


# --- a handshake once more


class Client:
    """The client's side of a TLS 1.3 connection, below OpenSSL: seals whatever records it likes."""

    def __init__(self, arena: Arena) -> None:
        with tempfile.TemporaryDirectory() as directory:
            pem, log = Path(directory, "pem"), Path(directory, "keys")
            pem.write_bytes(arena.identity.chain + b"\n" + arena.identity.private_key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            context.load_cert_chain(pem)
            context.keylog_filename = str(log)
            secured = context.wrap_socket(arena.node.a.dial_plainly(arena.node.b.address(ports.HBONE)))
            self._read_keys(secured, log.read_text())
        self.sock = socket.socket(fileno=secured.detach())
        self.sock.settimeout(PATIENCE)
        self._count = 0

    def _read_keys(self, secured: ssl.SSLSocket, log: str) -> None:
        """RFC 8446 section 7.3."""
        cipher = secured.cipher()
        assert cipher is not None
        algorithm, size = (hashes.SHA384(), 32) if "256_GCM" in cipher[0] else (hashes.SHA256(), 16)
        line = next(line for line in log.splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0"))
        secret = bytes.fromhex(line.split()[2])

        def expand(label: bytes, length: int) -> bytes:
            full = b"tls13 " + label
            info = length.to_bytes(2, "big") + bytes((len(full),)) + full + b"\x00"
            return HKDFExpand(algorithm, length, info).derive(secret)

        self._key, self._iv = AESGCM(expand(b"key", size)), expand(b"iv", 12)

    def send(self, kind: int, content: bytes) -> None:
        """One record, sealed as any other."""
        head = bytes((APPLICATION_DATA, 3, 3)) + (len(content) + 1 + 16).to_bytes(2, "big")
        nonce = (int.from_bytes(self._iv, "big") ^ self._count).to_bytes(12, "big")
        self._count += 1
        self.sock.sendall(head + self._key.encrypt(nonce, content + bytes((kind,)), head))

    def read_all(self) -> bytes:
        data = bytearray()
        while piece := self.sock.recv(1 << 16):
            data += piece
        return bytes(data)


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    session = context.wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()[5:]  # behind the record's head


def test_records_that_are_sealed_by_hand_are_understood(arena: Arena) -> None:
    """So that the next test means something."""
    with arena.attack(MOST_MIB):
        client = Client(arena)
        client.send(APPLICATION_DATA, OPENING)
        assert client.sock.recv(1 << 16)
        client.send(APPLICATION_DATA, b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8))  # PING
        assert client.sock.recv(1 << 16)
        client.sock.close()


@pytest.mark.parametrize("when", ["at once", "in use"])
def test_there_is_no_renegotiation(arena: Arena, when: str) -> None:
    """A ClientHello on a connection that stands: an alert, and the end (RFC 8446 section 4.1.2)."""
    with arena.attack(MOST_MIB):
        client = Client(arena)
        if when == "in use":
            client.send(APPLICATION_DATA, OPENING)
            assert client.sock.recv(1 << 16)
        client.send(HANDSHAKE, client_hello())
        client.read_all()  # it ends
        client.sock.close()


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (HANDSHAKE, b""),
        (HANDSHAKE, b"\x18\x00\x00\x01\x07"),  # a KeyUpdate that neither asks nor does not
        (HANDSHAKE, b"\x04\x00\x00\x24" + bytes(36)),  # a ticket from a client
        (ALERT, b""),
        (ALERT, b"\x02\x0a"),
        (20, b"\x01"),  # ChangeCipherSpec
        (99, b"x"),
    ],
)
def test_other_records_of_the_wrong_kind_end_the_connection(arena: Arena, kind: int, content: bytes) -> None:
    with arena.attack(MOST_MIB):
        client = Client(arena)
        client.send(APPLICATION_DATA, OPENING)
        assert client.sock.recv(1 << 16)
        client.send(kind, content)
        client.read_all()
        client.sock.close()


# --- handshakes without end


def test_a_thousand_handshakes_of_one_peer_do_not_shut_out_others(arena: Arena) -> None:
    """Each with a valid certificate, from eight at once: what costs most of what a peer may ask for."""
    count = 150

    def shake() -> None:
        for index in range(count):
            with tls_socket(arena.node.a, arena.node.b, arena.identity) as sock:
                if index % 2:
                    sock.sendall(OPENING)
            done.append(index)

    done: list[int] = []
    with arena.attack(16):
        threads = [in_background(shake) for _ in range(8)]
        while any(thread.is_alive() for thread in threads):
            arena.bystander.must_progress()
        assert len(done) == 8 * count
        assert Attacker.enter(arena).lives()
