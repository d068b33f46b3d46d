"""Mutual TLS as ztunnels speak it: TLS 1.3 only, ALPN h2, a SPIFFE certificate on both sides (Istio: src/tls).

`TlsSession` does no IO: ciphertext goes in and out as bytes. Chains and extended key usages are verified by OpenSSL
during the handshake; *who* the peer may be is the caller's question (mesh.identity.peers), asked before any payload.
Cipher suites are OpenSSL's for TLS 1.3: AES-256-GCM with every peer that has it, as all of Istio's do. Python cannot
take ChaCha20 off the list, and refusing it after the fact would refuse peers that also offer AES-128-GCM.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mesh.identity.errors import PeerRejected, TlsClosed, TlsFailed
from mesh.model.identity import SpiffeId

ALPN = "h2"
_RECORD = 16 << 10  # payload of the largest TLS record (RFC 8446 section 5.1)


@dataclass(frozen=True)
class TlsIdentity:
    """What one side proves itself with, all PEM: its chain (leaf first), its key, and the roots it trusts.

    Keep one object per certificate: its contexts are made once and live as long as it does.
    """

    chain: bytes
    private_key: bytes
    roots: bytes

    @cached_property
    def server_context(self) -> ssl.SSLContext:
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # no resumption: every connection proves who it is
        return context

    @cached_property
    def client_context(self) -> ssl.SSLContext:
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # peers are named by SPIFFE IDs, never by DNS
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_TICKET
        context.set_alpn_protocols([ALPN])
        try:
            context.load_verify_locations(cadata=self.roots.decode("ascii"))
            with _in_memory(self.chain + b"\n" + self.private_key) as path:
                # A password that cannot be right: an encrypted key must fail, not ask the terminal.
                context.load_cert_chain(path, password=b"-")
        except (ssl.SSLError, UnicodeDecodeError) as error:
            raise TlsFailed(f"the certificate, its key or the roots cannot be used: {_words(error)}") from error
        return context


def server_context(identity: TlsIdentity) -> ssl.SSLContext:
    """For accepting tunnels. Raises TlsFailed when the PEM is not usable."""
    return identity.server_context


def client_context(identity: TlsIdentity) -> ssl.SSLContext:
    """For opening tunnels. Raises TlsFailed when the PEM is not usable."""
    return identity.client_context


class TlsSession:
    """One TLS connection in memory.

    After any call that raised TlsFailed, what `take_out` returns (an alert) still belongs on the wire.
    """

    def __init__(self, context: ssl.SSLContext, server: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self._ended: TlsFailed | TlsClosed | None = None
        self._eof = False
        self._established = False

    def feed(self, ciphertext: bytes | bytearray | memoryview) -> None:
        """Take bytes that came from the peer."""
        self._incoming.write(ciphertext)

    def feed_eof(self) -> None:
        """The peer's transport has ended."""
        self._eof = True
        self._incoming.write_eof()

    def handshake(self) -> bool:
        """Go on with the handshake; True once it is done. Raises TlsFailed, also for a peer without ALPN h2."""
        if self._established:
            return True
        if self._ended is not None:
            raise self._ended
        try:
            self._tls.do_handshake()
            self._check_negotiated()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise self._fail(_words(error)) from error
        self._established = True
        return True

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt into `buffer` until it is full or no whole record is left; the number of bytes, 0 = wants more.

        Raises TlsClosed at close_notify or the end of the transport, TlsFailed when the peer breaks TLS; both come
        after everything that was sent before them has been read.
        """
        if self._ended is not None:
            raise self._ended
        filled, room = 0, len(buffer)
        read, incoming, pending = self._tls.read, self._incoming, self._tls.pending
        try:
            while filled < room and (incoming.pending or pending() or self._eof):
                size = read(room - filled, buffer[filled:] if filled else buffer)
                if not size:  # close_notify
                    self._ended = TlsClosed("the peer closed the connection")
                    break
                filled += int(size)  # with a buffer, read() returns a count
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = TlsClosed("the peer closed the connection")
        except ssl.SSLError as error:
            self._fail(_words(error))
        if not filled and self._ended is not None:
            raise self._ended
        return filled

    @property
    def ended(self) -> bool:
        """Whether the next `read_into` raises: after what it has returned, the peer closed or broke the connection."""
        return self._ended is not None

    def write(self, view: bytes | bytearray | memoryview) -> None:
        """Encrypt all of it; the ciphertext waits in `take_out`. Raises TlsFailed."""
        rest = memoryview(view)
        try:
            while rest:  # OpenSSL takes one record at a time
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError as error:
            raise self._fail(_words(error)) from error

    def close(self) -> None:
        """Stage close_notify; nothing can be written afterwards."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # unwrap() also waits for the peer's close_notify, which nobody needs here

    @property
    def pending_out(self) -> int:
        return self._outgoing.pending

    def take_out(self) -> bytes:
        """Ciphertext for the peer."""
        return self._outgoing.read()

    def peer_identities(self) -> tuple[SpiffeId, ...]:
        """All URI SANs of the peer's leaf that are SPIFFE IDs of Istio's form; others are skipped."""
        certificate: dict[str, Any] = self._tls.getpeercert() or {}
        names: tuple[tuple[str, str], ...] = certificate.get("subjectAltName", ())
        return tuple(_spiffe_ids(value for kind, value in names if kind == "URI"))

    def peer_identity(self) -> SpiffeId:
        """The first of `peer_identities`. Raises PeerRejected when there is none."""
        identities = self.peer_identities()
        if not identities:
            raise PeerRejected("the peer's certificate has no SPIFFE ID")
        return identities[0]

    def _check_negotiated(self) -> None:
        if self._tls.selected_alpn_protocol() != ALPN:
            raise self._fail("the peer does not offer HTTP/2 (ALPN h2)")

    def _fail(self, reason: str) -> TlsFailed:
        failure = TlsFailed(reason)
        self._ended = failure
        return failure


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path to `content` that is on no disk: the ssl module loads keys from files only."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"


def _spiffe_ids(uris: Iterator[str]) -> Iterator[SpiffeId]:
    for uri in uris:
        try:
            yield SpiffeId.parse(uri)
        except ValueError:
            continue


def _words(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate does not verify: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "the peer closed the connection during the handshake"
    reason = getattr(error, "reason", None) or str(error)
    return str(reason).replace("_", " ").lower()
