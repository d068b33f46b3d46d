"""What one side of a tunnel proves itself with: mutual TLS as ztunnels speak it (Istio: src/tls).

TLS 1.3 only, ALPN h2, AES-GCM, a SPIFFE certificate on both sides. Chains and extended key usages are verified by
OpenSSL during the handshake; *who* the peer may be is the caller's question (mesh.identity.peers), asked before any
payload. The key exchange is OpenSSL's choice: X25519 with ML-KEM-768 where the peer has it, else X25519 or P-256.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mesh.identity import openssl
from mesh.identity.errors import TlsFailed
from mesh.identity.openssl import ffi, lib
from mesh.identity.session import TlsSession as TlsSession

ALPN = b"\x02h2"  # as a list of one (RFC 7301 section 3.1)
SUITES = b"TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256"  # Istio's
CANNOT = "the certificate, its key or the roots cannot be used"


@dataclass(frozen=True)
class TlsIdentity:
    """What one side proves itself with, all PEM: its chain (leaf first), its key, and the roots it trusts.

    Keep one object per certificate: its contexts are made once and live as long as it does.
    """

    chain: bytes
    private_key: bytes
    roots: bytes

    @cached_property
    def server_context(self) -> TlsContext:
        return TlsContext(self, server=True)

    @cached_property
    def client_context(self) -> TlsContext:
        return TlsContext(self, server=False)


class TlsContext:
    """What all sessions of one identity and role share; `pointer` is the SSL_CTX."""

    def __init__(self, identity: TlsIdentity, server: bool) -> None:
        """Raises TlsFailed when the PEM is not usable."""
        method = lib.TLS_server_method() if server else lib.TLS_client_method()
        self.pointer: Any = openssl.held(lib.SSL_CTX_new(method), lib.SSL_CTX_free, "a TLS context")
        self._set_rules()
        self._set_alpn(server)
        try:
            self._trust(identity.roots)
            self._prove(identity.chain, identity.private_key)
        except TlsFailed as error:
            raise TlsFailed(f"{CANNOT}: {error}") from None

    def _set_rules(self) -> None:
        context = self.pointer
        self._must(lib.SSL_CTX_set_min_proto_version(context, openssl.TLS_1_3))
        self._must(lib.SSL_CTX_set_ciphersuites(context, SUITES))
        lib.SSL_CTX_set_verify(context, lib.SSL_VERIFY_PEER | lib.SSL_VERIFY_FAIL_IF_NO_PEER_CERT, ffi.NULL)
        # Nobody resumes: every connection proves who it is. OpenSSL sends tickets all the same, and accepts none.
        lib.SSL_CTX_set_options(
            context, lib.SSL_OP_NO_TICKET | lib.SSL_OP_NO_COMPRESSION | lib.SSL_OP_CIPHER_SERVER_PREFERENCE
        )
        lib.SSL_CTX_set_session_cache_mode(context, lib.SSL_SESS_CACHE_OFF | lib.SSL_SESS_CACHE_NO_INTERNAL)
        # Idle tunnels hold no record buffers; a write that is tried again may come from another address.
        lib.SSL_CTX_set_mode(context, lib.SSL_MODE_RELEASE_BUFFERS | lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER)

    def _set_alpn(self, server: bool) -> None:
        if server:
            lib.SSL_CTX_set_alpn_select_cb(self.pointer, _select_h2, ffi.NULL)
        elif lib.SSL_CTX_set_alpn_protos(
            self.pointer, ALPN, len(ALPN)
        ):  # unlike all others, it returns 0 when it could
            raise TlsFailed(openssl.reason())

    def _trust(self, roots: bytes) -> None:
        store = lib.SSL_CTX_get_cert_store(self.pointer)
        found = 0
        for root in openssl.certificates(roots):
            self._must(lib.X509_STORE_add_cert(store, root))
            found += 1
        if not found:
            raise TlsFailed("there is no root certificate")

    def _prove(self, chain: bytes, private_key: bytes) -> None:
        certificates = list(openssl.certificates(chain))
        if not certificates:
            raise TlsFailed("there is no certificate")
        self._must(lib.SSL_CTX_use_certificate(self.pointer, certificates[0]))
        for certificate in certificates[1:]:
            lib.X509_up_ref(certificate)  # the context takes this reference over
            self._must(lib.SSL_CTX_add_extra_chain_cert(self.pointer, certificate))
        self._must(lib.SSL_CTX_use_PrivateKey(self.pointer, openssl.private_key(private_key)))
        self._must(lib.SSL_CTX_check_private_key(self.pointer))

    def _must(self, result: int) -> None:
        if result != 1:
            raise TlsFailed(openssl.reason())


@ffi.callback("int(SSL *, unsigned char **, unsigned char *, unsigned char *, unsigned int, void *)")  # type: ignore[untyped-decorator]
def _select_h2(_ssl: Any, out: Any, out_size: Any, offered: Any, size: int, _argument: Any) -> int:
    """The server's choice among the client's protocols: h2, or an alert (RFC 7301 section 3.2)."""
    protocols = bytes(ffi.buffer(offered, size))
    at = 0
    while at < size:
        if protocols[at : at + len(ALPN)] == ALPN:
            out[0], out_size[0] = offered + at + 1, len(ALPN) - 1
            return int(lib.SSL_TLSEXT_ERR_OK)
        at += 1 + protocols[at]
    return int(lib.SSL_TLSEXT_ERR_ALERT_FATAL)


def server_context(identity: TlsIdentity) -> TlsContext:
    """For accepting tunnels. Raises TlsFailed when the PEM is not usable."""
    return identity.server_context


def client_context(identity: TlsIdentity) -> TlsContext:
    """For opening tunnels. Raises TlsFailed when the PEM is not usable."""
    return identity.client_context
