"""Peers that are slow, silent or half gone: each stage has a deadline, whatever drips in meanwhile."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hbone import wire
from tests.hostile.arena import Arena
from tests.hostile.attacker import OPENING, Attacker
from tests.worker.hbone_client import refused, tls_socket
from tests.worker.node import PATIENCE, Node, reset

pytestmark = pytest.mark.root

SETTINGS_TIMEOUT, CALM = 4, 11
ACK = wire.raw(wire.SETTINGS, wire.ACK)
MOST_MIB = 8.0


@pytest.fixture(scope="module")
def arena(hostile_node: Node) -> Iterator[Arena]:
    """Deadlines are short here."""
    arena = Arena(
        hostile_node,
        AMBIT_HANDSHAKE_TIMEOUT="1s",
        AMBIT_PREFACE_TIMEOUT="1s",
        AMBIT_PING_INTERVAL="300ms",
        AMBIT_PING_TIMEOUT="1500ms",
        AMBIT_INBOUND_IDLE="2s",
        AMBIT_MAX_TUNNELS_PER_PEER="40",
    )
    try:
        yield arena
    finally:
        arena.close()


def test_tls_that_drips_in_is_cut(arena: Arena) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing).do_handshake()
    with arena.attack(MOST_MIB), arena.node.a.dial_plainly(arena.node.b.address(15008)) as sock:
        assert drip(sock, outgoing.read())
        assert "no TLS handshake within" in arena.worker.ended().error


def test_a_preface_that_drips_in_is_cut(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        assert drip(tls_socket(arena.node.a, arena.node.b, arena.identity), OPENING)


@pytest.mark.parametrize(
    "unit",
    [
        wire.raw(wire.HEADERS, wire.END_HEADERS, 1, bytes(60_000)),
        wire.raw(wire.HEADERS, 0, 1) + wire.raw(wire.CONTINUATION, 0, 1, bytes(60_000)),
        wire.raw(wire.SETTINGS, 0, 0, bytes(600)),
    ],
)
def test_a_frame_that_drips_in_is_cut(arena: Arena, unit: bytes) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena, OPENING + ACK)
        assert drip(attacker.sock, unit)
        attacker.close()


def drip(sock: socket.socket, data: bytes) -> bool:
    """One byte at a time; whether the server had enough before the end of it."""
    sock.settimeout(0.05)
    for at in range(len(data)):
        try:
            sock.sendall(data[at : at + 1])
            while sock.recv(1 << 16):
                pass
            return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return False


def test_settings_have_to_be_acknowledged(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena)
        attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)]))
        assert attacker.ending() == SETTINGS_TIMEOUT
        attacker.close()


def test_a_tunnel_that_nobody_uses_is_ended_politely(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena, OPENING + ACK)
        answer_pings(attacker)
        assert attacker.ending() == 0
        attacker.close()


def answer_pings(attacker: Attacker) -> None:
    """Until the server ends the connection."""
    answered = 0
    while not attacker.closed:
        pings = [f for f in attacker.frames() if f.kind == wire.PING and not f.flags]
        for ping in pings[answered:]:
            attacker.send(wire.raw(wire.PING, wire.ACK, 0, ping.payload))
        answered = len(pings)
        attacker._read()


def test_a_peer_that_vanished_is_forgotten(arena: Arena) -> None:
    """Its FIN and RST never come: the address is taken away before it closes."""
    with arena.attack(MOST_MIB):
        attackers = [Attacker.enter(arena, OPENING + ACK) for _ in range(5)]
        for attacker in attackers:
            attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)]))
            attacker.wait_for(wire.HEADERS, 1)
        silence = [socket.socket(fileno=attacker.sock.detach()) for attacker in attackers]
        arena.settle()  # they are open, and answer no PING
        for sock in silence:
            sock.close()


def test_half_a_peer_gets_its_answers(arena: Arena) -> None:
    """TCP's FIN without close_notify: nothing more can come, so the tunnel ends."""
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena, OPENING + ACK)
        attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)]))
        attacker.wait_for(wire.HEADERS, 1)
        with socket.socket(fileno=attacker.sock.detach()) as plain:
            plain.shutdown(socket.SHUT_WR)
            plain.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                while plain.recv(1 << 16):
                    pass


def test_who_sends_all_the_time_and_never_reads_is_cut(arena: Arena) -> None:
    """What it asks for is an echo; its own windows are wide open, so the answers pile up in the kernel."""
    with arena.attack(16):
        attacker = Attacker.enter(arena, wire.PREFACE + wire.settings((4, 0x7FFFFFFF)) + ACK + wire.update(0, 1 << 30))
        attacker.send(wire.headers(1, [(":method", "CONNECT"), (":authority", arena.authority)]))
        attacker.wait_for(wire.HEADERS, 1)
        attacker.sock.settimeout(0.02)
        deadline = time.monotonic() + PATIENCE
        ended = False
        while not ended:
            assert time.monotonic() < deadline, "it goes on and on"
            try:
                attacker.sock.sendall(wire.raw(wire.DATA, 0, 1, bytes(4096)))
            except TimeoutError:
                continue
            except OSError:
                ended = True
        attacker.close()


# --- many connections


def test_one_address_may_hold_so_many_tunnels(arena: Arena) -> None:
    with arena.attack(16):
        attackers = []
        for _ in range(60):
            with contextlib.suppress(OSError):
                attackers.append(Attacker.enter(arena, OPENING + ACK))
        worker = arena.worker
        refusals = "tunnels already"
        worker.wait(lambda: sum(refusals in record.error for record in worker.closed) >= 20, "20 to be refused")
        counters = worker.describe().counters
        assert counters["inbound_tunnels_refused"] >= 20
        assert counters["inbound_peers"] == 1
        for attacker in attackers:
            attacker.close()


def test_a_thousand_connections_that_shake_no_hands(arena: Arena) -> None:
    with arena.attack(32):
        silent = []
        for _ in range(1000):
            with contextlib.suppress(ConnectionResetError):  # one address may hold no more than 40
                silent.append(arena.node.a.dial_plainly(arena.node.b.address(15008)))
        arena.bystander.must_progress()
        for index, sock in enumerate(silent):
            if index & 1:
                reset(sock)
            else:
                sock.close()


def test_connections_that_are_reset_during_the_handshake(arena: Arena) -> None:
    with arena.attack(32):
        for index in range(1000):
            sock = arena.node.a.dial_plainly(arena.node.b.address(15008))
            with contextlib.suppress(OSError):
                sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[: index % 12])
            reset(sock)


# --- TLS


def test_old_tls_is_refused(arena: Arena) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        arena.attack(MOST_MIB),
        arena.node.a.dial_plainly(arena.node.b.address(15008)) as sock,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(sock)


def test_a_ticket_resumes_nothing(arena: Arena) -> None:
    """Every connection proves who it is; without a session that is taken up again there is no early data either."""
    with arena.attack(MOST_MIB):
        attacker = Attacker.enter(arena, OPENING + ACK)
        assert attacker.lives()
        context, ticket = attacker.sock.context, attacker.sock.session
        attacker.close()
        plain = arena.node.a.dial_plainly(arena.node.b.address(15008))
        with context.wrap_socket(plain, session=ticket) as again:
            assert not again.session_reused


def test_garbage_behind_the_handshake_is_an_alert(arena: Arena) -> None:
    """A ClientHello again (renegotiation), and records that do not decrypt."""
    for garbage in (b"\x16\x03\x03\x00\x05\x01\x00\x00\x01\x00", b"\x17\x03\x03\x00\x20" + bytes(32), bytes(64)):
        with arena.attack(MOST_MIB):
            secured = tls_socket(arena.node.a, arena.node.b, arena.identity)
            with socket.socket(fileno=secured.detach()) as plain:
                plain.settimeout(PATIENCE)
                plain.sendall(garbage)
                with contextlib.suppress(ConnectionError):
                    while plain.recv(1 << 16):
                        pass


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl's client is what can ask for new keys")
def test_a_storm_of_key_updates(arena: Arena, tmp_path: Path) -> None:
    """Each asks for one in return, which nobody reads."""
    pem = tmp_path / "identity.pem"
    pem.write_bytes(arena.identity.chain + b"\n" + arena.identity.private_key)
    client = ["openssl", "s_client", "-connect", f"{arena.node.b.ip4}:15008", "-alpn", "h2", "-cert", pem, "-key", pem]
    with arena.attack(MOST_MIB):
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{arena.node.a.netns_name}", *client],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdin is not None
        for _ in range(300):
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(b"K\n")
                process.stdin.flush()
            time.sleep(0.001)  # it takes one order at a time
        process.kill()
        said, _ = process.communicate()
        assert said.count(b"KEYUPDATE") > 30


def test_a_stranger_gets_no_byte_of_http(arena: Arena) -> None:
    with arena.attack(MOST_MIB):
        for _ in range(50):
            assert refused(tls_socket(arena.node.a, arena.node.b, None))
