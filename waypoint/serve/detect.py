"""What a connection speaks, by the first bytes that its client sends."""

from __future__ import annotations

from enum import Enum

from mesh.hbone.frames import PREFACE

MOST_PEEKED = 17 << 10  # bytes: a TLS record with a ClientHello (RFC 8446 section 5.1), or a method
LONGEST_METHOD = 24
_TLS_HANDSHAKE, _CLIENT_HELLO, _SNI = 0x16, 0x01, 0x0000
_METHOD_OCTETS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-_abcdefghijklmnopqrstuvwxyz")


class Speaks(Enum):
    MORE = "not enough bytes to tell"
    HTTP1 = "HTTP/1"
    HTTP2 = "HTTP/2"
    TLS = "TLS"
    TCP = "something else"


def detect(data: bytes) -> Speaks:
    """Of a client that speaks first. A method and a space, and then a target, make HTTP/1."""
    if data[: len(PREFACE)] == PREFACE[: len(data)]:
        return Speaks.HTTP2 if len(data) >= len(PREFACE) else Speaks.MORE
    if data[:1] == bytes((_TLS_HANDSHAKE,)):
        return _detect_tls(data)
    start = data.lstrip(b"\r\n")[: LONGEST_METHOD + 1]  # empty lines before a request (RFC 9112 section 2.2)
    method, space, _ = start.partition(b" ")
    if not all(octet in _METHOD_OCTETS for octet in method) or len(method) > LONGEST_METHOD:
        return Speaks.TCP
    if not space:
        return Speaks.MORE
    return _detect_target(data.lstrip(b"\r\n")[len(method) + 1 :]) if method else Speaks.TCP


def detect_version(data: bytes) -> Speaks:
    """Of a client that speaks HTTP, well or badly."""
    if data[: len(PREFACE)] == PREFACE[: len(data)]:
        return Speaks.HTTP2 if len(data) >= len(PREFACE) else Speaks.MORE
    return Speaks.HTTP1


def detect_tls(data: bytes) -> Speaks:
    """Of a client whose connections are routed as they are: by the server name in TLS, or not at all."""
    return _detect_tls(data) if data[:1] == bytes((_TLS_HANDSHAKE,)) else Speaks.TCP


def _detect_target(rest: bytes) -> Speaks:
    """Whether a request line goes on as one: what looks like HTTP is treated as HTTP, complete or not."""
    if not rest:
        return Speaks.MORE
    line, newline, _ = rest[:MOST_PEEKED].partition(b"\n")
    if newline:
        return Speaks.HTTP1 if b" HTTP/" in line or line[:1] in b"/*" else Speaks.TCP
    return Speaks.HTTP1 if rest[:1] in b"/*" or len(rest) >= LONGEST_METHOD else Speaks.MORE


def _detect_tls(data: bytes) -> Speaks:
    if len(data) < 6:
        return Speaks.MORE
    return Speaks.TLS if data[1] == 3 and data[5] == _CLIENT_HELLO else Speaks.TCP


def server_name(data: bytes) -> str | None:
    """The SNI of a ClientHello (RFC 6066 section 3): "" when it has none or cannot be read, None when more must come.
    The hello may be spread over several records."""
    hello = b""
    at = 0
    while at + 5 <= len(data) and data[at] == _TLS_HANDSHAKE:
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        hello += data[at + 5 : at + 5 + size]
        at += 5 + size
    if len(hello) >= 4 and len(hello) >= 4 + int.from_bytes(hello[1:4], "big"):
        try:
            return _sni(hello[4 : 4 + int.from_bytes(hello[1:4], "big")])
        except (IndexError, UnicodeDecodeError):
            return ""
    return None if len(data) < MOST_PEEKED and (at >= len(data) or data[at] == _TLS_HANDSHAKE) else ""


def _sni(hello: bytes) -> str:
    at = 2 + 32
    at += 1 + hello[at]  # session id
    at += 2 + int.from_bytes(hello[at : at + 2], "big")  # cipher suites
    at += 1 + hello[at]  # compression methods
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    while at + 4 <= min(end, len(hello)):
        kind, size = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        if kind == _SNI and size > 5:
            return hello[at + 9 : at + 4 + size].decode("ascii")
        at += 4 + size
    return ""
