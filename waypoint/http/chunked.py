"""The chunked transfer coding, strictly (RFC 9112 section 7.1)."""

from __future__ import annotations

import re

from waypoint.http.fields import parse_fields, split_head, trailer_fields
from waypoint.http.message import ProtocolError
from waypoint.routing.request import Headers

MOST_LINE = 1024  # bytes of a chunk's size and extensions, which nobody uses
MOST_TRAILERS = 16 << 10
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# Extensions are read, as their quotes may hide a line break's look, and dropped.
_SIZE = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[\t !#-\[\]-~\x80-\xff]*"))?)*'
).fullmatch

SIZE, DATA, DATA_END, TRAILERS, DONE = range(5)


class ChunkReader:
    """`read` takes bytes as they come; `done` once the trailers were read."""

    __slots__ = ("_left", "_state", "trailers")

    def __init__(self) -> None:
        self._state = SIZE
        self._left = 0
        self.trailers: Headers = ()

    @property
    def done(self) -> bool:
        return self._state == DONE

    def read(self, data: bytes, at: int) -> tuple[int, list[memoryview], int]:
        """From position `at` on: where reading stopped (the rest has to come again, with more), the payload, and the
        bytes in between that were no payload. Raises ProtocolError."""
        view, pieces, overhead, start = memoryview(data), [], 0, at
        while self._state != DONE:
            if self._state == DATA:
                take = min(self._left, len(data) - at)
                if not take:
                    break
                pieces.append(view[at : at + take])
                at += take
                self._left -= take
                if not self._left:
                    self._state = DATA_END
                continue
            end = self._read_line(data, at)
            if end < 0:
                break
            at = end
        overhead = at - start - sum(map(len, pieces))
        return at, pieces, overhead

    def _read_line(self, data: bytes, at: int) -> int:
        """Where what follows begins; -1 when it is not there as a whole."""
        if self._state == DATA_END:
            if data[at : at + 2] != b"\r\n"[: len(data) - at]:
                raise ProtocolError("a chunk is longer than its size")
            if len(data) - at < 2:
                return -1
            self._state = SIZE
            return at + 2
        if self._state == TRAILERS:
            return self._read_trailers(data, at)
        end = data.find(b"\n", at, at + MOST_LINE)
        if end < 0:
            if len(data) - at >= MOST_LINE:
                raise ProtocolError("the line of a chunk's size does not end")
            return -1
        found = _SIZE(data, at, end - 1) if data[end - 1 : end] == b"\r" else None
        if found is None:
            raise ProtocolError("a chunk's size cannot be read")
        self._left = int(found[1], 16)
        self._state = DATA if self._left else TRAILERS
        return end + 1

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._state = DONE
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + MOST_TRAILERS)
        if end < 0:
            if len(data) - at >= MOST_TRAILERS:
                raise ProtocolError("the trailers are too large", 431)
            return -1
        self.trailers = trailer_fields(parse_fields(split_head(data[at:end])))
        self._state = DONE
        return end + 4
