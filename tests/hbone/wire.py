"""Raw frames, made and read without the code under test."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
PRIORITISED = 32

CONNECT = [(":method", "CONNECT"), (":authority", "10.0.0.1:80")]
GET = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")]
OK = [(":status", "200")]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def raw(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def read(data: bytes) -> Iterator[Frame]:
    """The whole frames of `data`; the preface, where there is one, is skipped."""
    at = len(PREFACE) if data.startswith(PREFACE) else 0
    while len(data) - at >= 9:
        size = int.from_bytes(data[at : at + 3], "big")
        kind, flags, stream = struct.unpack_from(">BBI", data, at + 3)
        payload = data[at + 9 : at + 9 + size]
        if len(payload) < size:
            return
        yield Frame(kind, flags, stream & 0x7FFFFFFF, payload)
        at += 9 + size


def block(fields: list[tuple[str, str]], huffman: bool = False) -> bytes:
    """A header block as another implementation makes it; a new encoder each time, so nothing refers to the table."""
    return hpack.Encoder().encode(fields, huffman=huffman)


def literals(*fields: tuple[bytes, bytes]) -> bytes:
    """A block of literal fields, whatever they hold."""
    return b"".join(b"\x00" + bytes((len(n),)) + n + bytes((len(v),)) + v for n, v in fields)


def headers(stream: int, fields: list[tuple[str, str]], flags: int = END_HEADERS) -> bytes:
    return raw(HEADERS, flags, stream, block(fields))


def settings(*values: tuple[int, int]) -> bytes:
    return raw(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *value) for value in values))


def update(stream: int, increment: int) -> bytes:
    return raw(UPDATE, 0, stream, struct.pack(">I", increment))


def rst(stream: int, code: int = 8) -> bytes:
    return raw(RST, 0, stream, struct.pack(">I", code))


def goaway(last: int, code: int = 0, reason: bytes = b"") -> bytes:
    return raw(GOAWAY, 0, 0, struct.pack(">II", last, code) + reason)
