"""A peer that is not ours: Python's own ssl module on the system's OpenSSL, in memory, with a session's interface."""

from __future__ import annotations

import ssl
from pathlib import Path

from mesh.identity.errors import TlsFailed
from mesh.identity.tls import TlsIdentity


def client_context(identity: TlsIdentity | None, folder: Path, roots: bytes) -> ssl.SSLContext:
    """A client as ours is, without a certificate when there is no identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=roots.decode())
    context.set_alpn_protocols(["h2"])
    if identity is not None:
        pem = folder / "client.pem"
        pem.write_bytes(identity.chain + b"\n" + identity.private_key)
        context.load_cert_chain(pem)
    return context


class PythonTls:
    """The client's end."""

    def __init__(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=False, session=session)

    def feed(self, ciphertext: bytes | bytearray | memoryview) -> None:
        self._incoming.write(ciphertext)

    def handshake(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsFailed(str(error)) from error
        return True

    def take_news(self) -> None:
        """Reads what comes after a handshake besides payload: tickets."""
        try:
            self.tls.read(1)
        except ssl.SSLWantReadError:
            pass

    @property
    def pending_out(self) -> int:
        return self._outgoing.pending

    def take_out(self) -> bytes:
        return self._outgoing.read()
