"""Header blocks to fields (RFC 7541), in the order in which a connection brings them.

The dynamic table is our own, the Huffman code the hpack library's. A peer asks the same again and again: blocks that
leave the table as it is are remembered until one changes it, and so are strings.
"""

from __future__ import annotations

from functools import lru_cache

import hpack
from hpack.huffman_table import decode_huffman

from .frames import ConnectionFailed, ErrorCode
from .headers import FIELD_OVERHEAD, STATIC, TABLE_SIZE, Field, Fields, size_of

KNOWN_BLOCKS = 16  # that are remembered: responses of a peer are alike, requests often not (trace ids)
LARGEST_KNOWN = 4096  # bytes of their fields: what a connection remembers stays below 64 KiB
LARGEST_STRING = 64  # bytes of a string that is remembered: all connections together stay below 512 KiB
LONGEST_INTEGER = 5  # bytes behind its prefix, as the hpack library has it: enough for 32 bits
# A list beyond the advertised size costs one stream; a block that unfolds to more than this many times that size is an
# attack (its decoding has to be broken off, and with it the connection's state).
HARD_LIMIT_FACTOR = 4

# A field, and how many octets its name and both are: text that is no UTF-8 does not tell.
Entry = tuple[Field, int, int]

_STATIC: list[Entry] = [(field, len(field[0]), len(field[0]) + len(field[1])) for field in STATIC]


class HeadersTooLarge(Exception):
    """A header list beyond what this end advertised."""


class HeaderDecoder:
    """Decodes the header blocks of one connection."""

    __slots__ = ("_known", "_limit", "_table")

    def __init__(self, max_header_list: int) -> None:
        self._limit = max_header_list
        self._table = _Table()
        self._known: dict[bytes, Fields] = {}  # blocks with the table as it is now

    def decode(self, block: bytes) -> Fields:
        """The fields of a block. Raises HeadersTooLarge, or ConnectionFailed when the tables are lost."""
        known = self._known.get(block)
        if known is not None:
            return known
        changes = self._table.changes
        try:
            fields = self._fields(block)
        except IndexError:
            raise _undecodable("it is cut off") from None
        size = size_of(fields)
        if self._table.changes != changes:
            self._known.clear()
        elif size <= LARGEST_KNOWN and size <= self._limit:
            if len(self._known) >= KNOWN_BLOCKS:
                self._known.clear()
            self._known[block] = fields
        if size > self._limit:
            raise HeadersTooLarge
        return fields

    def _fields(self, block: bytes) -> list[Field]:
        """Raises IndexError at the end of a block that is cut off, and ConnectionFailed."""
        table = self._table
        fields: list[Field] = []
        left = self._limit * HARD_LIMIT_FACTOR
        at, end = 0, len(block)
        while at < end:
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 0x7F)
                entry = table.entry(index)
            elif first & 0x40:
                entry, at = self._literal(block, at, 0x3F)
                table.add(entry)
            elif first & 0x20:
                size, at = _integer(block, at, 0x1F)
                if fields or size > TABLE_SIZE:
                    raise _undecodable("a size of the table that is too large, or in the middle")
                table.resize(size)
                continue
            else:
                entry, at = self._literal(block, at, 0x0F)
            fields.append(entry[0])
            left -= entry[2] + FIELD_OVERHEAD
            if left < 0:
                reason = "a header list far beyond the advertised size"
                raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, reason)
        return fields

    def _literal(self, block: bytes, at: int, mask: int) -> tuple[Entry, int]:
        index, at = _integer(block, at, mask)
        if index:
            (name, _), name_size, _ = self._table.entry(index)
        else:
            (name, name_size), at = _string(block, at)
        (value, value_size), at = _string(block, at)
        return ((name, value), name_size, name_size + value_size), at


class _Table:
    """The dynamic table behind the static one (RFC 7541 sections 2.3 and 4)."""

    __slots__ = ("_entries", "_left", "_size", "changes")

    def __init__(self) -> None:
        self._entries: list[Entry] = []  # the oldest first
        self._size = TABLE_SIZE
        self._left = TABLE_SIZE
        self.changes = 0

    def entry(self, index: int) -> Entry:
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        back = index - len(_STATIC)
        if not 0 < back <= len(self._entries):
            raise _undecodable("an index beyond the table")
        return self._entries[len(self._entries) - back]

    def add(self, entry: Entry) -> None:
        """An entry that is larger than the table empties it."""
        self.changes += 1
        self._entries.append(entry)
        self._left -= entry[2] + FIELD_OVERHEAD
        self._evict()

    def resize(self, size: int) -> None:
        self.changes += 1
        self._left += size - self._size
        self._size = size
        self._evict()

    def _evict(self) -> None:
        gone = 0
        while self._left < 0:
            self._left += self._entries[gone][2] + FIELD_OVERHEAD
            gone += 1
        del self._entries[:gone]


def _undecodable(reason: str) -> ConnectionFailed:
    return ConnectionFailed(ErrorCode.COMPRESSION_ERROR, f"a header block cannot be decoded: {reason}")


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """RFC 7541 section 5.1: the integer, and where it ends."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    shift = 0
    while True:
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
        if shift >= 7 * LONGEST_INTEGER:
            raise _undecodable("an integer that is too long")


def _string(block: bytes, at: int) -> tuple[tuple[str, int], int]:
    """RFC 7541 section 5.2: the string with the number of its octets, and where it ends."""
    huffman = block[at] >= 0x80
    size, at = _integer(block, at, 0x7F)
    end = at + size
    if end > len(block):
        raise _undecodable("it is cut off")
    octets = block[at:end]
    if not huffman:
        return (octets.decode("utf-8", "replace"), size), end
    return (_known_huffman(octets) if size <= LARGEST_STRING else _huffman(octets)), end


def _huffman(octets: bytes) -> tuple[str, int]:
    try:
        decoded: bytes = decode_huffman(octets)
    except hpack.HPACKError:
        raise _undecodable("broken Huffman code") from None
    return (decoded.decode("utf-8", "replace"), len(decoded))


_known_huffman = lru_cache(maxsize=1024)(_huffman)
