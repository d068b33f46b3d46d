"""Many streams on one HTTP/2 connection: what a tunnel and a connection of requests have in common.

What a stream cannot send for want of credit or room waits with it. Streams that waited go before the one that filled
the buffer.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar

from mesh.hbone import Connection, ErrorCode
from waypoint.channel import NOBODY, Bytes, ChannelUser

log = logging.getLogger("stream")


class Stream:
    """One stream as a channel. A producer that heeds `congested` keeps its backlog short."""

    __slots__ = ("_backlog", "_ending", "_id", "_owner", "in_ended", "out_ended", "queued", "user")

    def __init__(self, owner: Multiplex[Stream], stream: int, user: ChannelUser = NOBODY) -> None:
        self._owner = owner
        self._id = stream
        self._backlog: deque[memoryview] = deque()
        self._ending = False
        self.in_ended = False  # both are kept by the owner
        self.out_ended = False
        self.queued = False  # it waits for room in the connection
        self.user = user

    @property
    def congested(self) -> bool:
        return bool(self._backlog)

    def write(self, data: Bytes) -> None:
        view = memoryview(data)
        if self._backlog:
            self._backlog.append(memoryview(bytes(view)))
            return
        left = self._send(view)
        if left is not None:
            self._backlog.append(memoryview(bytes(left)))
            self._owner.wait(self._id, self)

    def end(self) -> None:
        if self._backlog:
            self._ending = True
        else:
            self._say_end()

    def reset(self) -> None:
        self._backlog.clear()
        self.user = NOBODY
        self._owner.reset(self._id, ErrorCode.CANCEL)

    def acknowledge(self, size: int) -> None:
        self._owner.acknowledge(self._id, size)

    def writable(self) -> None:
        """There may be room or credit again."""
        backlog = self._backlog
        while backlog:
            left = self._send(backlog[0])
            if left is not None:
                backlog[0] = left
                self._owner.wait(self._id, self)
                return
            backlog.popleft()
        if self._ending:
            self._ending = False
            self._say_end()
        else:
            self.user.drained()

    def broken(self, reason: str) -> None:
        """The connection says that the stream is over before its time."""
        self._backlog.clear()
        user, self.user = self.user, NOBODY
        user.lost(reason)

    def _say_end(self) -> None:
        self._owner.end(self._id)

    def _send(self, view: memoryview) -> memoryview | None:
        """What is left of it; None when all of it is on its way (or nobody wants it any more)."""
        owner, stream = self._owner, self._id
        while True:
            room = owner.reserve(stream)
            if room is None:
                return view if owner.carries(stream) else None
            size = len(view)
            if size <= len(room):
                room[:size] = view
                owner.commit(stream, size)
                return None
            size = len(room)
            room[:] = view[:size]
            owner.commit(stream, size)
            view = view[size:]


S = TypeVar("S", bound=Stream, covariant=True)


class Multiplex(ABC, Generic[S]):
    """The streams of one connection; also the part of its `Handler` that is about them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closed = False
        self.streams: dict[int, S] = {}
        self._connection: Connection | None = None
        self._marked = False
        self._waiting: list[Stream] = []

    # --- for streams

    def carries(self, stream: int) -> bool:
        """Whether what is written to a stream may still arrive."""
        return not self.closed and stream in self.streams

    def reserve(self, stream: int) -> memoryview | None:
        return None if self._connection is None or self.closed else self._connection.reserve(stream)

    def commit(self, stream: int, size: int) -> None:
        assert self._connection is not None
        self._connection.commit(stream, size)
        if not self._marked:
            self.mark()

    def wait(self, stream: int, waiter: Stream) -> None:
        """`waiter.writable` is called when there may be room or credit."""
        assert self._connection is not None
        if not waiter.queued and not self._connection.starved(stream):  # else the peer's WINDOW_UPDATE for it wakes it
            waiter.queued = True
            self._waiting.append(waiter)

    def acknowledge(self, stream: int, size: int) -> None:
        if self._connection is not None and not self.closed:
            self._connection.acknowledge(stream, size)
            if not self._marked and self._connection.staged:
                self.mark()

    def end(self, stream: int) -> None:
        if self._connection is not None and self.carries(stream):
            self._connection.end(stream)
            self.ended_out(stream)

    def ended_out(self, stream: int) -> None:
        """Our end of it has been said."""
        self.mark()
        found = self.streams.get(stream)
        if found is not None:
            found.out_ended = True
            if found.in_ended:
                self.release(stream)

    def reset(self, stream: int, code: ErrorCode) -> None:
        if self._connection is not None and self.carries(stream):
            self._connection.reset(stream, code)
            self.mark()
            self.release(stream)

    def release(self, stream: int) -> None:
        """It is over: END_STREAM both ways, or RST_STREAM."""
        if self.streams.pop(stream, None) is not None and not self.closed:
            self.stream_released(stream)

    def mark(self) -> None:
        """Something is staged: it leaves at the end of this turn."""
        if not self._marked:
            self._marked = True
            self.loop.call_soon(self._flush)

    def break_streams(self, reason: str) -> None:
        """The connection has gone."""
        self._waiting.clear()
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            stream.broken(reason)

    def wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for stream in waiting:
            stream.queued = False
            stream.writable()

    @abstractmethod
    def _flush(self) -> None:
        """Sends what is staged."""

    @abstractmethod
    def stream_released(self, stream: int) -> None:
        """There may be room for another stream."""

    # --- HTTP/2 says (mesh.hbone.Handler)

    def request_received(self, stream: int, headers: dict[str, str], ended: bool) -> None:
        raise NotImplementedError  # only a tunnel's server calls it

    def response_received(self, stream: int, status: int, headers: dict[str, str], ended: bool) -> None:
        raise NotImplementedError  # only a tunnel's client calls it

    def data_received(self, stream: int, pieces: list[memoryview]) -> None:
        found = self.streams.get(stream)
        if found is None:
            return
        try:
            found.user.received(pieces)
        except Exception:  # a fault of ours in one stream must not take the others of its connection with it
            log.exception("a stream is broken off")
            found.reset()

    def stream_ended(self, stream: int) -> None:
        found = self.streams.get(stream)
        if found is not None:
            found.in_ended = True
            if found.out_ended:
                self.release(stream)
            try:
                found.user.ended()
            except Exception:
                log.exception("a stream is broken off")
                found.reset()

    def stream_reset(self, stream: int, code: int) -> None:
        found = self.streams.get(stream)
        if found is not None:
            self.release(stream)
            found.broken(f"the peer reset the stream (code {code})")

    def stream_writable(self, stream: int) -> None:
        found = self.streams.get(stream)
        if found is not None:
            found.writable()

    def connection_writable(self) -> None:
        self.wake()

    def ping_acknowledged(self, payload: bytes) -> None: ...
