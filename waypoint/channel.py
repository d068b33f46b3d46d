"""A stream of bytes in both directions, whatever carries it: one stream of a tunnel, or a plain TCP connection.

`write` always takes all of it. Who produces asks `congested` after each write and goes on at `drained`; so a channel
never holds more than what one producer writes at once. What came in is held by its user until it is acknowledged: the
peer's window is the bound.
"""

from __future__ import annotations

from typing import Protocol

Bytes = bytes | bytearray | memoryview


class ChannelUser(Protocol):
    """Who reads a channel. All views are valid during the call only."""

    def received(self, pieces: list[memoryview]) -> None:
        """Each byte has to be acknowledged once it is not held any more."""

    def ended(self) -> None:
        """The peer sends nothing more; writing may go on."""

    def lost(self, reason: str) -> None:
        """It broke. Nothing more is heard of it, and writing does nothing."""

    def drained(self) -> None:
        """Not congested any more."""


class Channel(Protocol):
    user: ChannelUser

    @property
    def congested(self) -> bool:
        """Whether something written waits for the peer."""

    def write(self, data: Bytes) -> None:
        """Copies what it cannot send at once."""

    def end(self) -> None:
        """Nothing more will be written; reading goes on."""

    def reset(self) -> None:
        """Breaks it off both ways; nothing more is heard of it."""

    def acknowledge(self, size: int) -> None: ...


class Nobody:
    """The user of a channel that has none (yet, or any more)."""

    def received(self, pieces: list[memoryview]) -> None: ...

    def ended(self) -> None: ...

    def lost(self, reason: str) -> None: ...

    def drained(self) -> None: ...


NOBODY = Nobody()
