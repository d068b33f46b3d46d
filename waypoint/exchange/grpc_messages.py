"""The messages of gRPC in a body, counted as they pass (PROTOCOL-HTTP2.md: Length-Prefixed-Message)."""

from __future__ import annotations

PREFIX = 5  # a flag, and the length in four octets


class Messages:
    """`count` is that of messages that have begun."""

    __slots__ = ("_left", "_prefix", "count")

    def __init__(self) -> None:
        self.count = 0
        self._prefix = b""
        self._left = 0

    def add(self, pieces: list[memoryview]) -> None:
        for piece in pieces:
            at = 0
            while at < len(piece):
                if self._left:
                    step = min(self._left, len(piece) - at)
                    self._left -= step
                else:
                    step = min(PREFIX - len(self._prefix), len(piece) - at)
                    self._read(bytes(piece[at : at + step]))
                at += step

    def _read(self, octets: bytes) -> None:
        self._prefix += octets
        if len(self._prefix) == PREFIX:
            self._left = int.from_bytes(self._prefix[1:], "big")
            self._prefix = b""
            self.count += 1
