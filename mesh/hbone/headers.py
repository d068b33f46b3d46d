"""Fields to header blocks, and blocks to frames and back (HPACK, RFC 7541; RFC 9113 section 4.3).

What this end sends never touches a dynamic table: all fields but a few statuses are never-indexed literals. So there
is no encoder state, equal requests have equal bytes, and a peer of the same kind decodes them without state as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from hpack.table import HeaderTable

from .frames import CONTINUATION, END_HEADERS, END_STREAM, HEADERS, ConnectionFailed, ErrorCode, frame

Field = tuple[str, str]
Fields = Sequence[Field]

FIELD_OVERHEAD = 32  # what RFC 9113 section 10.5.1 adds to each field's size
TABLE_SIZE = 4096  # the dynamic table that HTTP/2 starts with; this end keeps it at that
EMPTY_TABLE = b"\x20"  # a size update to zero, RFC 7541 section 6.3
NEVER_INDEXED = 0x10
MAX_ONE_BYTE_LENGTH = 126
UNIQUE = ("forwarded", "traceparent")  # have another value in each request; all others are alike for a pod's requests

STATIC: list[Field] = [(str(name, "ascii"), str(value, "ascii")) for name, value in HeaderTable.STATIC_TABLE]
_STATIC_FIELD = {field: index for index, field in enumerate(STATIC, 1)}
_STATIC_NAME = {name: index for index, (name, _) in reversed(list(enumerate(STATIC, 1)))}
_is_sendable = re.compile(r"(?! )[^\x00-\x1f\x7f]*(?<! )").fullmatch


def size_of(fields: Fields) -> int:
    """As SETTINGS_MAX_HEADER_LIST_SIZE counts."""
    return sum(len(name) + len(value) + FIELD_OVERHEAD for name, value in fields)


def encode(fields: Iterable[Field]) -> bytes:
    """A header block of static entries and never-indexed literals. Raises ValueError for control characters."""
    return b"".join([_encode_field(name, value) for name, value in fields])


def _encode_field(name: str, value: str) -> bytes:
    return _encode_anew(name, value) if name in UNIQUE else _encode_known(name, value)


@lru_cache(maxsize=512)
def _encode_known(name: str, value: str) -> bytes:
    return _encode_anew(name, value)


def _encode_anew(name: str, value: str) -> bytes:
    if name == ":status" and (index := _STATIC_FIELD.get((name, value))):
        return bytes((0x80 | index,))
    # Of printable text only spaces at its ends are wrong; the expression, which knows all, takes ten times as long.
    plain = value.isprintable() and value[:1] != " " and value[-1:] != " "
    if not plain and not _is_sendable(value):
        raise ValueError(f"header {name} has a value that HTTP cannot carry: {value!r}")
    return _head(name) + _literal(value)


@lru_cache(maxsize=512)
def _head(name: str) -> bytes:
    index = _STATIC_NAME.get(name, 0)
    if index >= 15:
        return bytes((NEVER_INDEXED | 15, index - 15))
    return bytes((NEVER_INDEXED | index,)) + (b"" if index else _literal(name))


def _literal(text: str) -> bytes:
    octets = text.encode()
    size = len(octets)
    if size <= MAX_ONE_BYTE_LENGTH:
        return bytes((size,)) + octets
    size -= 127
    prefix = bytearray((127,))
    while size >= 128:
        prefix.append(size & 127 | 128)
        size >>= 7
    prefix.append(size)
    return bytes(prefix) + octets


def header_frames(stream: int, block: bytes, max_frame: int, *, end_stream: bool) -> bytes:
    """HEADERS, and as many CONTINUATION as the peer's frame size asks for."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame:
        return frame(HEADERS, flags | END_HEADERS, stream, block)
    frames = [frame(HEADERS, flags, stream, block[:max_frame])]
    for at in range(max_frame, len(block), max_frame):
        last = END_HEADERS if at + max_frame >= len(block) else 0
        frames.append(frame(CONTINUATION, last, stream, block[at : at + max_frame]))
    return b"".join(frames)


class BlockAssembler:
    """Puts HEADERS and its CONTINUATION frames together; nothing else may come between them (RFC 9113 section 4.3)."""

    __slots__ = ("_fragments", "_left", "_max_fragments", "_max_size", "ended", "stream")

    def __init__(self, max_header_list: int, max_fragments: int) -> None:
        # No sane encoding of an acceptable list is larger than the list.
        self._max_size = max_header_list
        self._max_fragments = max_fragments
        self._fragments: list[bytes] = []
        self._left = 0
        self.stream = 0  # whose block is under way; 0 for none
        self.ended = False

    def begin(self, stream: int, flags: int, fragment: bytes) -> bytes | None:
        """The whole block, or None until CONTINUATION frames complete it. Raises ConnectionFailed."""
        self.ended = bool(flags & END_STREAM)
        self._left = self._max_size
        self._fragments.clear()
        self.stream = stream
        return self.add(stream, flags, fragment)

    def add(self, stream: int, flags: int, fragment: bytes) -> bytes | None:
        if stream != self.stream or not stream:
            raise ConnectionFailed(
                ErrorCode.PROTOCOL_ERROR, "CONTINUATION does not continue this stream's header block"
            )
        self._left -= len(fragment)
        self._fragments.append(fragment)
        if self._left < 0 or len(self._fragments) > self._max_fragments:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a header block far beyond the advertised size")
        if not flags & END_HEADERS:
            return None
        self.stream = 0
        return self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments)


__all__ = [
    "EMPTY_TABLE",
    "FIELD_OVERHEAD",
    "STATIC",
    "TABLE_SIZE",
    "BlockAssembler",
    "Field",
    "Fields",
    "encode",
    "header_frames",
    "size_of",
]
