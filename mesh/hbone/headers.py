"""Header blocks to fields and back (HPACK, RFC 7541; RFC 9113 section 4.3).

What this end sends never touches a dynamic table: all fields but a few statuses are never-indexed literals. So there
is no encoder state, equal requests have equal bytes, and a peer of the same kind decodes them without state as well.
Blocks that do need the dynamic table or Huffman codes are left to the hpack library.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import hpack
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
INDICES = bytes(range(0x81, 0xFF))  # an indexed field in one byte, RFC 7541 section 6.1
KNOWN_BLOCKS = 16  # decoded blocks that are remembered: responses of a peer are alike, requests never (trace ids)
LARGEST_KNOWN = 4096  # bytes of their fields: what a connection remembers stays below 64 KiB of either kind
# A list beyond the advertised size costs one stream; a block that unfolds to more than this many times that size is an
# attack (its decoding has to be broken off, and with it the connection's state).
HARD_LIMIT_FACTOR = 4

_STATIC: list[Field] = [(str(n, "ascii"), str(v, "ascii")) for n, v in HeaderTable.STATIC_TABLE]
_STATIC_FIELD = {field: index for index, field in enumerate(_STATIC, 1)}
_STATIC_NAME = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))}
_is_sendable = re.compile(r"(?! )[^\x00-\x1f\x7f]*(?<! )").fullmatch


class _NotPlain(Exception):
    """The block needs the dynamic table or Huffman codes, or is broken: hpack knows."""


class HeadersTooLarge(Exception):
    """A header list beyond what this end advertised."""


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


class HeaderDecoder:
    """Decodes the header blocks of one connection, in their order."""

    __slots__ = ("_indexed", "_known", "_limit", "_tables")

    def __init__(self, max_header_list: int) -> None:
        self._limit = max_header_list
        self._tables = hpack.Decoder(max_header_list * HARD_LIMIT_FACTOR)
        self._known: dict[bytes, Fields] = {}  # blocks that do not depend on the dynamic table
        self._indexed: dict[bytes, Fields] = {}  # blocks of nothing but indices, as the table is now

    def decode(self, block: bytes) -> Fields:
        """The fields of a block. Raises HeadersTooLarge, or ConnectionFailed when the tables are lost."""
        fields = self._known.get(block)
        if fields is None:
            try:
                fields = _decode_plain(block)
            except (_NotPlain, IndexError):
                fields = self._decode_with_table(block)
            else:
                _remember(self._known, block, fields)
        if size_of(fields) > self._limit:
            raise HeadersTooLarge
        return fields

    def _decode_with_table(self, block: bytes) -> Fields:
        """Clients that ask the same again and again send indices only, which leave the table as it is."""
        if block.translate(None, INDICES):
            self._indexed.clear()
            return self._decode_any(block)
        fields = self._indexed.get(block)
        if fields is None:
            fields = self._decode_any(block)
            _remember(self._indexed, block, fields)
        return fields

    def _decode_any(self, block: bytes) -> Fields:
        try:
            fields = self._tables.decode(block, raw=True)
        except hpack.OversizedHeaderListError:
            raise ConnectionFailed(
                ErrorCode.ENHANCE_YOUR_CALM, "a header list far beyond the advertised size"
            ) from None
        except (hpack.HPACKError, IndexError, ValueError) as error:
            # The library's words hold memory addresses, which are nothing for a peer.
            reason = f"a header block cannot be decoded ({type(error).__name__})"
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, reason) from error
        return [(_text(name), _text(value)) for name, value in fields]


def _remember(known: dict[bytes, Fields], block: bytes, fields: Fields) -> None:
    if size_of(fields) > LARGEST_KNOWN:
        return
    if len(known) >= KNOWN_BLOCKS:
        known.clear()
    known[block] = fields


def _text(octets: bytes) -> str:
    return str(octets, "utf-8", "replace")


def _decode_plain(block: bytes) -> Fields:
    """Static entries and literals that are neither indexed nor Huffman coded; anything else raises."""
    fields: list[Field] = []
    at, end = 0, len(block)
    while at < end:
        first = block[at]
        at += 1
        if first & 0x80:
            fields.append(_static(first & 0x7F))
            continue
        if first & 0x60:
            raise _NotPlain
        index = first & 15
        if index == 15:
            index += block[at]
            at += 1
        if index:
            name = _static(index)[0]
        else:
            name, at = _plain_literal(block, at)
        value, at = _plain_literal(block, at)
        fields.append((name, value))
    return fields


def _static(index: int) -> Field:
    if not 0 < index <= len(_STATIC):
        raise _NotPlain
    return _STATIC[index - 1]


def _plain_literal(block: bytes, at: int) -> tuple[str, int]:
    size = block[at]
    at += 1
    if size & 0x80:
        raise _NotPlain
    if size == 127:  # two more bytes at most: longer than that no plain field ever is
        low = block[at]
        high = block[at + 1] if low & 0x80 else 0
        if high & 0x80:
            raise _NotPlain
        size += low & 127 | high << 7
        at += 2 if low & 0x80 else 1
    end = at + size
    if end > len(block):
        raise _NotPlain
    return _text(block[at:end]), end


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
    "TABLE_SIZE",
    "BlockAssembler",
    "Field",
    "Fields",
    "HeaderDecoder",
    "HeadersTooLarge",
    "encode",
    "header_frames",
    "size_of",
]
