"""What both ends of an HTTP/2 connection on a channel share: bytes in and out, and the life of the connection."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import TypeVar

from mesh.hbone import Budget, ConnectionFailed, Limits, Role
from mesh.hbone.headers import Field
from waypoint.channel import Channel
from waypoint.http.http2_connection import MessageConnection
from waypoint.http.message import RequestHead, ResponseHead
from waypoint.routing.request import Headers
from waypoint.streams import Multiplex, Stream

KEEPALIVE = 10.0  # seconds of activity after which the peer is asked for a PING, and floods are counted anew
PING = b"ambit-h2"
LIMITS = Limits(
    initial_window=256 << 10,  # a reader that waits for its other side never looks as if it kept up: no growth
    stream_window=256 << 10,
    connection_window=1 << 20,
    max_frame=1 << 14,
    max_concurrent_streams=250,
    max_header_list=60 << 10,
    staging=64 << 10,
    control_room=64 << 10,
)
# Used up before anything else runs, so all connections of the process share it. Twice a header list, for the reader.
_scratch = memoryview(bytearray(256 << 10))
_growth = Budget(64 << 20)

S = TypeVar("S", bound="MessageStream", covariant=True)


class MessageStream(Stream):
    """A stream whose end may carry trailers."""

    __slots__ = ("_trailers_out", "trailers")

    def __init__(self, owner: Http2End[MessageStream], stream: int) -> None:
        super().__init__(owner, stream, self)
        self.trailers: Headers = ()  # of the peer
        self._trailers_out: Headers = ()

    def finish(self, trailers: Headers = ()) -> None:
        self._trailers_out = trailers
        self.end()

    def _say_end(self) -> None:
        if self._trailers_out:
            self._owner.trail(self._id, self._trailers_out)  # type: ignore[attr-defined]
        else:
            self._owner.end(self._id)

    # --- as its own user (channel.ChannelUser)

    @abstractmethod
    def received(self, pieces: list[memoryview]) -> None: ...

    @abstractmethod
    def ended(self) -> None: ...

    @abstractmethod
    def lost(self, reason: str) -> None: ...

    @abstractmethod
    def drained(self) -> None: ...


class Http2End(Multiplex[S]):
    """The user of a channel, and the handler of the connection on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: Channel, role: Role) -> None:
        super().__init__(loop)
        self._channel = channel
        self._messages = self._connection = MessageConnection(role, self, LIMITS, _scratch, _growth)
        self._tick: asyncio.TimerHandle | None = None
        self._draining = False
        channel.user = self
        self.mark()

    def drain(self) -> None:
        """GOAWAY: streams that stand may end."""
        if not self.closed and not self._draining:
            self._draining = True
            self._messages.go_away()
            self.mark()

    def trail(self, stream: int, trailers: tuple[Field, ...]) -> None:
        if self.carries(stream):
            self._messages.trail(stream, trailers)
            self.ended_out(stream)

    # --- the channel

    def received(self, pieces: list[memoryview]) -> None:
        connection = self._messages
        if self.closed:
            return
        total = 0
        try:
            for piece in pieces:
                total += len(piece)
                at = 0
                while at < len(piece) and not self.closed:
                    room = connection.receive_buffer()
                    size = min(len(room), len(piece) - at)
                    room[:size] = piece[at : at + size]
                    at += size
                    connection.received(size)
        except ConnectionFailed as failure:
            self._fail(str(failure))
            return
        self._channel.acknowledge(total)  # each stream's window bounds what is held of it
        if connection.staged and not self._marked:
            self.mark()
        if self._tick is None and not self.closed:
            self._tick = self.loop.call_later(KEEPALIVE, self._new_period)

    def ended(self) -> None:
        self._close("the peer ended the connection")

    def lost(self, reason: str) -> None:
        self._close(reason)

    def drained(self) -> None:
        self._flush()

    def _flush(self) -> None:
        self._marked = False
        connection, channel = self._messages, self._channel
        if self.closed:
            return
        if connection.staged and not channel.congested:
            channel.write(connection.outgoing())
            connection.sent()
        if connection.failure is not None:
            self._fail(str(connection.failure))
            return
        if not channel.congested and self._waiting:
            self.wake()
        if self._draining and not self.streams and not connection.staged:
            self._close("")

    def _new_period(self) -> None:
        self._tick = None
        if not self.closed and not self._channel.congested:
            self._messages.ping(PING)
            self.mark()
        elif not self.closed:
            self._tick = self.loop.call_later(KEEPALIVE, self._new_period)

    def _fail(self, reason: str) -> None:
        """The peer broke the rules: GOAWAY, and the end."""
        if self.closed:
            return
        if self._messages.staged and not self._channel.congested:
            self._channel.write(self._messages.outgoing())
            self._messages.sent()
        self._close(reason)

    def _close(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        if self._tick is not None:
            self._tick.cancel()
        self._messages.release()
        self._channel.user = _Discard(self._channel)
        self._channel.end()
        self.break_streams(reason or "the connection has been closed")
        self._gone()

    # --- HTTP/2 says

    def trailers(self, stream: int, trailers: Headers) -> None:
        found = self.streams.get(stream)
        if found is not None:
            found.trailers = trailers

    def limits_changed(self) -> None: ...

    def going_away(self, last_stream: int, code: int, reason: bytes) -> None: ...

    def interim(self, stream: int, head: ResponseHead) -> None:
        raise NotImplementedError  # only a client's connection calls it

    def response(self, stream: int, head: ResponseHead) -> None:
        raise NotImplementedError

    def request(self, stream: int, head: RequestHead) -> None:
        raise NotImplementedError  # only a server's connection calls it

    @abstractmethod
    def _gone(self) -> None: ...


class _Discard:
    """Of a connection that is over: what still comes is thrown away until the peer has ended too."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def received(self, pieces: list[memoryview]) -> None:
        self._channel.acknowledge(sum(map(len, pieces)))

    def ended(self) -> None: ...

    def lost(self, reason: str) -> None: ...

    def drained(self) -> None: ...
