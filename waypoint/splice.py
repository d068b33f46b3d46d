"""Two channels made one: bytes, ends and breaks of each go to the other, with back-pressure."""

from __future__ import annotations

from collections.abc import Callable

from waypoint.channel import Channel


class _Half:
    """Reads one channel and writes the other."""

    __slots__ = ("_held", "_other", "_splice", "_to", "ended_in", "moved")

    def __init__(self, splice: Splice, to: Channel) -> None:
        self._splice = splice
        self._to = to
        self._held = 0  # written but not acknowledged: the writer is congested
        self.moved = 0
        self.ended_in = False
        self._other: _Half | None = None

    def pair(self, other: _Half) -> None:
        self._other = other

    def received(self, pieces: list[memoryview]) -> None:
        size = 0
        for piece in pieces:
            self._to.write(piece)
            size += len(piece)
        self.moved += size
        if self._to.congested:
            self._held += size
        else:
            self._from().acknowledge(size + self._held)
            self._held = 0

    def ended(self) -> None:
        self.ended_in = True
        self._to.end()
        assert self._other is not None
        if self._other.ended_in:
            self._splice.over("")

    def lost(self, reason: str) -> None:
        self._to.reset()
        self._splice.over(reason)

    def drained(self) -> None:
        """The channel that we read is also written, by the other half: let that one's peer send on."""
        assert self._other is not None
        self._other.relieve()

    def relieve(self) -> None:
        if self._held:
            held, self._held = self._held, 0
            self._from().acknowledge(held)

    def _from(self) -> Channel:
        assert self._other is not None
        return self._other._to


class Splice:
    """Starts at once. `finished` is called once, with "" or with why it broke."""

    def __init__(self, client: Channel, server: Channel, finished: Callable[[Splice, str], None]) -> None:
        self._up, self._down = _Half(self, server), _Half(self, client)
        self._up.pair(self._down)
        self._down.pair(self._up)
        self._client, self._server = client, server
        self._finished: Callable[[Splice, str], None] | None = finished
        client.user, server.user = self._up, self._down

    @property
    def sent(self) -> int:
        """Bytes from the client to the server."""
        return self._up.moved

    @property
    def received(self) -> int:
        return self._down.moved

    def push(self, early: bytes, client_ended: bool = False) -> None:
        """What the client sent before; it counts as received now, so it has not been acknowledged yet."""
        if early:
            self._up.received([memoryview(early)])
        if client_ended:
            self._up.ended()

    def pull(self, early: bytes, server_ended: bool = False) -> None:
        """Likewise, what the server sent before."""
        if early:
            self._down.received([memoryview(early)])
        if server_ended:
            self._down.ended()

    def cut(self, reason: str) -> None:
        self._client.reset()
        self._server.reset()
        self.over(reason)

    def over(self, reason: str) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            finished(self, reason)
