"""One TLS connection in memory, without IO: ciphertext goes in and out as bytes.

Plaintext is read straight into the caller's buffer and written straight out of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from mesh.identity import openssl, san
from mesh.identity.errors import PeerRejected, TlsClosed, TlsFailed
from mesh.identity.openssl import ffi, lib
from mesh.model.identity import SpiffeId

if TYPE_CHECKING:
    from mesh.identity.tls import TlsContext

PROTOCOL = b"h2"
CLOSED = "the peer closed the connection"
SMALL = 16 << 10  # bytes: a queue that never held more is not worth exchanging
RECEIVE_SIZE = 256 << 10  # ciphertext per read: many records, and still a fair turn for the others
OUTGOING_ROOM = 512 << 10  # what one turn of a tunnel seals at most, and more: 320 KiB of frames and 22 B per record

# Looked up once: these are called for every turn of a tunnel.
_read: Final[Any] = lib.SSL_read
_write: Final[Any] = lib.SSL_write
_from_buffer: Final[Any] = ffi.from_buffer
_put: Final[Any] = lib.BIO_write
_take: Final[Any] = lib.BIO_read
_pending: Final[Any] = lib.BIO_get_mem_data
_where: Final[Any] = ffi.new("char **")

# What is received is fed before anything else is received, and what is taken out is sent before anything else is taken
# out: so one buffer of each kind serves all sessions of the process.
ciphertext: Final = memoryview(bytearray(RECEIVE_SIZE))
_ciphertext_start: Final[Any] = ffi.from_buffer(ciphertext)
_outgoing: Final = memoryview(bytearray(OUTGOING_ROOM))
_outgoing_start: Final[Any] = ffi.from_buffer(_outgoing)


class TlsSession:
    """After any call that raised TlsFailed, what `take_out` returns (an alert) still belongs on the wire."""

    def __init__(self, context: TlsContext, server: bool) -> None:
        self._context = context
        self._ssl: Any = openssl.held(lib.SSL_new(context.pointer), lib.SSL_free, "a TLS session")
        self._incoming: Any = None
        self._outgoing: Any = None
        self._most = 0  # bytes that were queued at once since `tidy`
        self._large = False  # the queues have grown
        self._eof = False
        self._take_new_queues()
        (lib.SSL_set_accept_state if server else lib.SSL_set_connect_state)(self._ssl)
        self._ended: TlsFailed | TlsClosed | None = None
        self._established = False

    def feed(self, size: int) -> None:
        """Take the first `size` bytes of `ciphertext`, which came from the peer."""
        if _put(self._incoming, _ciphertext_start, size) != size:
            raise MemoryError("OpenSSL has no memory for what was received")
        if size > self._most:
            self._most = size

    def feed_eof(self) -> None:
        """The peer's transport has ended."""
        lib.BIO_set_mem_eof_return(self._incoming, openssl.END)
        self._eof = True

    def handshake(self) -> bool:
        """Go on with the handshake; True once it is done. Raises TlsFailed, also for a peer without ALPN h2."""
        if self._established:
            return True
        self._raise_end()
        result = lib.SSL_do_handshake(self._ssl)
        if result != 1:
            if lib.SSL_get_error(self._ssl, result) == lib.SSL_ERROR_WANT_READ:
                return False
            raise self._fail(self._why_no_handshake())
        self._check_negotiated()
        self._established = True
        return True

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt into `buffer` until it is full or no whole record is left; the number of bytes, 0 = wants more.

        Raises TlsClosed at close_notify or the end of the transport, TlsFailed when the peer breaks TLS; both come
        after everything that was sent before them has been read.
        """
        self._raise_end()
        ssl, start = self._ssl, _from_buffer(buffer)
        room = len(buffer)
        filled: int = _read(ssl, start, room)  # one record
        if filled <= 0:
            self._note_end(filled)
            self._raise_end()
            return 0
        # OpenSSL takes record by record out of the queue: an empty one has nothing more, and need not be asked for it.
        while filled < room and (self._eof or _pending(self._incoming, _where)):
            size: int = _read(ssl, start + filled, room - filled)
            if size <= 0:
                self._note_end(size)
                break
            filled += size
        return filled

    @property
    def ended(self) -> bool:
        """Whether the next `read_into` raises: after what it has returned, the peer closed or broke the connection."""
        return self._ended is not None

    def write(self, view: bytes | bytearray | memoryview) -> None:
        """Encrypt all of it; the ciphertext waits in `take_out`. Raises TlsFailed."""
        if len(view) and _write(self._ssl, _from_buffer(view), len(view)) != len(view):
            raise self._fail(openssl.reason())

    def close(self) -> None:
        """Stage close_notify; nothing can be written afterwards."""
        if self._established and lib.SSL_shutdown(self._ssl) < 0:
            openssl.reason()

    def tidy(self) -> None:
        """Call it now and then: queues that have grown and are not used any more are exchanged for small ones, since
        OpenSSL's never shrink. After bulk they would hold 640 KiB for each tunnel."""
        if self._most > SMALL:
            self._large = True
        elif self._large and not self.pending_out and not _pending(self._incoming, _where):
            self._take_new_queues()
        self._most = 0

    def _take_new_queues(self) -> None:
        self._incoming, self._outgoing = openssl.memory_bio(), openssl.memory_bio()
        lib.SSL_set_bio(self._ssl, self._incoming, self._outgoing)  # they are the session's now, and the old ones freed
        self._large = False

    @property
    def pending_out(self) -> int:
        return int(_pending(self._outgoing, _where))

    def take_out(self) -> memoryview:
        """All ciphertext for the peer. The view is valid until any session is asked again: what the network does not
        take at once has to be copied."""
        size: int = _pending(self._outgoing, _where)
        if not size:
            return _outgoing[:0]
        if size > self._most:
            self._most = size
        if size > OUTGOING_ROOM:
            large = memoryview(bytearray(size))
            _take(self._outgoing, _from_buffer(large), size)
            return large
        _take(self._outgoing, _outgoing_start, size)
        return _outgoing[:size]

    def peer_identities(self) -> tuple[SpiffeId, ...]:
        """All URI SANs of the peer's leaf that are SPIFFE IDs of Istio's form; others are skipped."""
        certificate = lib.SSL_get_peer_certificate(self._ssl)
        if certificate == ffi.NULL:
            return ()
        try:
            names = san.uri_names(openssl.der(ffi.gc(certificate, lib.X509_free)))
        except san.Malformed as error:
            raise PeerRejected(f"the peer's certificate cannot be read: {error}") from None
        return tuple(_spiffe_ids(names))

    def peer_identity(self) -> SpiffeId:
        """The first of `peer_identities`. Raises PeerRejected when there is none."""
        identities = self.peer_identities()
        if not identities:
            raise PeerRejected("the peer's certificate has no SPIFFE ID")
        return identities[0]

    def _raise_end(self) -> None:
        if self._ended is not None:
            raise self._ended

    def _note_end(self, result: int) -> None:
        """After a read that gave nothing: why, unless it only wants more."""
        error = lib.SSL_get_error(self._ssl, result)
        if error == lib.SSL_ERROR_WANT_READ:
            return
        if error == lib.SSL_ERROR_ZERO_RETURN or error == lib.SSL_ERROR_SYSCALL or self._transport_ended():
            openssl.reason()
            self._ended = TlsClosed(CLOSED)
        else:
            self._fail(openssl.reason())

    def _transport_ended(self) -> bool:
        code = lib.ERR_peek_error()
        return bool(code) and lib.ERR_GET_REASON(code) == lib.SSL_R_UNEXPECTED_EOF_WHILE_READING

    def _why_no_handshake(self) -> str:
        verdict = lib.SSL_get_verify_result(self._ssl)
        if verdict != lib.X509_V_OK:
            openssl.reason()
            words = ffi.string(lib.X509_verify_cert_error_string(verdict)).decode("ascii", "replace")
            return f"the peer's certificate does not verify: {words}"
        if self._transport_ended():
            openssl.reason()
            return "the peer closed the connection during the handshake"
        return openssl.reason()

    def _check_negotiated(self) -> None:
        name, size = ffi.new("unsigned char **"), ffi.new("unsigned int *")
        lib.SSL_get0_alpn_selected(self._ssl, name, size)
        if not size[0] or bytes(ffi.buffer(name[0], size[0])) != PROTOCOL:
            raise self._fail("the peer does not offer HTTP/2 (ALPN h2)")

    def _fail(self, reason: str) -> TlsFailed:
        failure = TlsFailed(reason)
        self._ended = failure
        return failure


def _spiffe_ids(uris: tuple[str, ...]) -> Iterator[SpiffeId]:
    for uri in uris:
        try:
            yield SpiffeId.parse(uri)
        except ValueError:
            continue
