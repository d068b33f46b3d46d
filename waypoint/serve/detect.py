"""What a connection speaks, by the first bytes that its client sends."""

from __future__ import annotations

from enum import Enum

from mesh.hbone.frames import PREFACE
from waypoint.serve.server_name import CLIENT_HELLO, HANDSHAKE, MOST_PEEKED

LONGEST_METHOD = 24
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
    if begins_as_tls(data):
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
    return _detect_tls(data) if data[:1] == bytes((HANDSHAKE,)) else Speaks.TCP


def _detect_target(rest: bytes) -> Speaks:
    """Whether a request line goes on as one: what looks like HTTP is treated as HTTP, complete or not."""
    if not rest:
        return Speaks.MORE
    line, newline, _ = rest[:MOST_PEEKED].partition(b"\n")
    if newline:
        return Speaks.HTTP1 if b" HTTP/" in line or line[:1] in b"/*" else Speaks.TCP
    return Speaks.HTTP1 if rest[:1] in b"/*" or len(rest) >= LONGEST_METHOD else Speaks.MORE


def begins_as_tls(data: bytes) -> bool:
    """Whether a ClientHello may have begun, however little of it there is."""
    return data[:1] == bytes((HANDSHAKE,)) and _detect_tls(data) is not Speaks.TCP


def _detect_tls(data: bytes) -> Speaks:
    if len(data) < 6:
        return Speaks.MORE
    return Speaks.TLS if data[1] == 3 and data[5] == CLIENT_HELLO else Speaks.TCP
