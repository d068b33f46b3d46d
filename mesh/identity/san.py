"""The URI names in a certificate's subjectAltName, read from its DER (RFC 5280 sections 4.1 and 4.2.1.6).

OpenSSL has parsed and verified the certificate before; this only walks to the one extension that OpenSSL's bindings do
not hand out. `cryptography.x509` could do it, for 6 MB of memory in each worker.
"""

from __future__ import annotations

SEQUENCE = 0x30
OBJECT_IDENTIFIER = 0x06
BOOLEAN = 0x01
OCTET_STRING = 0x04
EXTENSIONS = 0xA3  # [3] EXPLICIT, in TBSCertificate
URI = 0x86  # [6] IMPLICIT IA5String, in GeneralName
SUBJECT_ALT_NAME = bytes((0x55, 0x1D, 0x11))  # 2.5.29.17
LONGEST_LENGTH = 4  # bytes that a length may have; no certificate has 4 GiB


class Malformed(ValueError):
    """Not a certificate as RFC 5280 has them."""


def uri_names(certificate: bytes) -> tuple[str, ...]:
    """In order; () when there are none. Raises Malformed."""
    tbs = _children(_only(certificate, SEQUENCE))[:1]
    if not tbs or tbs[0][0] != SEQUENCE:
        raise Malformed("no TBSCertificate")
    for tag, content in _children(tbs[0][1]):
        if tag == EXTENSIONS:
            return _from_extensions(_only(content, SEQUENCE))
    return ()


def _from_extensions(extensions: bytes) -> tuple[str, ...]:
    for _, extension in _children(extensions):
        parts = [part for part in _children(extension) if part[0] != BOOLEAN]  # whether it is critical
        if len(parts) == 2 and parts[0] == (OBJECT_IDENTIFIER, SUBJECT_ALT_NAME) and parts[1][0] == OCTET_STRING:
            names = _children(_only(parts[1][1], SEQUENCE))
            return tuple(_text(content) for tag, content in names if tag == URI)
    return ()


def _text(content: bytes) -> str:
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed("a URI that is not ASCII") from None


def _only(data: bytes, tag: int) -> bytes:
    """The content of the one element that `data` must be."""
    found = _children(data)
    if len(found) != 1 or found[0][0] != tag:
        raise Malformed(f"no single element with tag {tag:#x}")
    return found[0][1]


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element, one after the other."""
    found = []
    at = 0
    while at < len(data):
        start, size = _length(data, at + 1)
        if start + size > len(data):
            raise Malformed("an element is longer than what holds it")
        found.append((data[at], data[start : start + size]))
        at = start + size
    return found


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Where the content begins, and its size."""
    if at >= len(data):
        raise Malformed("an element without a length")
    first = data[at]
    if first < 0x80:
        return at + 1, first
    count = first & 0x7F
    if not 0 < count <= LONGEST_LENGTH or at + 1 + count > len(data):
        raise Malformed("a length that DER does not have")
    return at + 1 + count, int.from_bytes(data[at + 1 : at + 1 + count], "big")
