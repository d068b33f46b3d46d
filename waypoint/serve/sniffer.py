"""Waits for a client's first bytes to see what it speaks.

A client that says nothing may wait for a server that speaks first. So after a moment the destination is dialled, and
whoever speaks first decides: the server, then it is TCP; the client, then its bytes do. HTTP servers never speak first,
so nobody gets past the policies for HTTP by waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from waypoint.channel import NOBODY, Channel
from waypoint.serve.detect import Speaks, begins_as_tls, detect
from waypoint.serve.server_name import MOST_PEEKED, server_name

SILENCE = 0.5  # seconds after which the server may be the one that speaks first
PATIENCE = 2.0  # seconds from a client's first byte until it is clear what it speaks


class Sniffer:
    """The user of a channel until `found(speaks, early, sni, client_ended)` takes it over, or `silent()` is called, or
    `unreadable(reason)` refuses it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        found: Callable[[Speaks, bytes, str, bool], None],
        silent: Callable[[], None],
        unreadable: Callable[[str], None],
        look: Callable[[bytes], Speaks] = detect,
        otherwise: Speaks = Speaks.TCP,
    ) -> None:
        """`otherwise` is what a client speaks whose bytes never tell."""
        self._loop = loop
        self._channel = channel
        self._found = found
        self._silent = silent
        self._unreadable = unreadable
        self._detect = look
        self._otherwise = otherwise
        self._buffer = b""
        self._over = False
        self._timer: asyncio.TimerHandle = loop.call_later(SILENCE, self._nothing_said)
        channel.user = self

    def received(self, pieces: list[memoryview]) -> None:
        if not self._buffer:
            self._timer.cancel()
            self._timer = self._loop.call_later(PATIENCE, self._out_of_patience)
        self._buffer += b"".join(pieces)
        speaks = self._detect(self._buffer)
        if speaks is Speaks.TLS and server_name(self._buffer) is None:
            return
        if speaks is not Speaks.MORE or len(self._buffer) >= MOST_PEEKED:
            self._settle(self._otherwise if speaks is Speaks.MORE else speaks)

    def ended(self) -> None:
        self._settle(self._as_it_is(), client_ended=True)

    def lost(self, reason: str) -> None:
        self.cancel()

    def drained(self) -> None: ...

    def cancel(self) -> None:
        self._over = True
        self._timer.cancel()
        self._channel.user = NOBODY

    def _out_of_patience(self) -> None:
        self._settle(self._as_it_is())

    def _as_it_is(self) -> Speaks:
        """Of a client whose bytes do not tell yet: who dribbles a ClientHello must not get round what goes by its
        server name."""
        return Speaks.TLS if begins_as_tls(self._buffer) else self._otherwise

    def _settle(self, speaks: Speaks, client_ended: bool = False) -> None:
        if self._over:
            return
        buffer = self._buffer
        self.cancel()
        name = server_name(buffer) if speaks is Speaks.TLS else ""
        if isinstance(name, str):
            self._found(speaks, buffer, name, client_ended)
        else:
            self._unreadable(name.reason if name else "a ClientHello that did not end in time")

    def _nothing_said(self) -> None:
        if not self._over:
            self._silent()
