"""The server name in a ClientHello (RFC 6066 section 3), read as strictly as OpenSSL does.

Routes and policies go by it. So what one server might read otherwise than we do (a name behind a wrong length, two
names, the extension twice) is no name: such a connection is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_PEEKED = 17 << 10  # bytes: a TLS record with a ClientHello (RFC 8446 section 5.1)
HANDSHAKE, CLIENT_HELLO = 0x16, 0x01
_SERVER_NAME, _HOST_NAME = 0, 0
_LONGEST_RECORD = 1 << 14
_HEADER = 4  # of a handshake message: type and length
_NAME = re.compile(rb"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something that begins as a ClientHello and is none."""

    reason: str


def server_name(data: bytes) -> str | Unreadable | None:
    """In lower case, without a dot at its end; "" when there is none. None when more must come. The hello may be spread
    over several records."""
    try:
        hello = _client_hello(data)
        if hello is not None:
            return _name_in(_Reader(hello))
    except _Malformed as error:
        return Unreadable(f"a malformed ClientHello: {error}")
    return Unreadable(f"a ClientHello of more than {MOST_PEEKED} bytes") if len(data) >= MOST_PEEKED else None


def _client_hello(data: bytes) -> bytes | None:
    """Its body, put together from records; what follows it is not looked at."""
    records, message = _Reader(data), bytearray()
    while len(message) < _size_of(message) and records.left >= 5:
        kind, major, _ = records.take(3)
        size = records.number(2)
        if kind != HANDSHAKE or major != 3 or not 0 < size <= _LONGEST_RECORD:
            raise _Malformed("the record is no handshake")
        message += records.take(min(size, records.left))
    size = _size_of(message)
    return bytes(message[_HEADER:size]) if len(message) >= size else None


def _size_of(message: bytearray) -> int:
    """Of a handshake message with its header, as far as that is there."""
    if message and message[0] != CLIENT_HELLO:
        raise _Malformed("another handshake message")
    return _HEADER + int.from_bytes(message[1:_HEADER], "big") if len(message) >= _HEADER else _HEADER


def _name_in(hello: _Reader) -> str:
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    if not hello.left:  # as before RFC 5246 there may be no extensions
        return ""
    extensions = _Reader(hello.vector(2))
    hello.end()
    found = [content for kind, content in _extensions(extensions) if kind == _SERVER_NAME]
    if len(found) > 1:
        raise _Malformed("two server_name extensions")
    return _host_name(_Reader(found[0])) if found else ""


def _extensions(extensions: _Reader) -> list[tuple[int, bytes]]:
    found = []
    while extensions.left:
        found.append((extensions.number(2), extensions.vector(2)))
    return found


def _host_name(extension: _Reader) -> str:
    names = _Reader(extension.vector(2))
    extension.end()
    kind, name = names.number(1), names.vector(2)
    names.end()
    if kind != _HOST_NAME or not _NAME.fullmatch(name):
        raise _Malformed("the server name is no host name")
    return name.decode().lower().removesuffix(".")


class _Malformed(Exception):
    """The text says what."""


class _Reader:
    """Takes bytes from the front; raises _Malformed when there are fewer."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise _Malformed("it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, prefix: int) -> bytes:
        return self.take(self.number(prefix))

    def end(self) -> None:
        if self.left:
            raise _Malformed("something follows where nothing may")
