"""HTTP/2 for messages of any kind, on mesh.hbone's engine: its framing, flow control and bounds against floods; the
requests, responses and trailers here are whole ones, where a tunnel's carry nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from mesh.hbone import Budget, Connection, GoingAway, Limits, Role, TooManyStreams
from mesh.hbone.core import Core, Handler
from mesh.hbone.guard import Excess
from mesh.hbone.headers import Field, Fields
from mesh.hbone.inbound import Inbound
from mesh.hbone.messages import Malformed
from mesh.hbone.streams import Stream
from waypoint.http import http2_messages as messages
from waypoint.http.message import RequestHead, ResponseHead
from waypoint.routing.request import Headers


class MessageHandler(Handler, Protocol):
    """What it is told besides; `request_received` and `response_received` of the engine are not called."""

    def request(self, stream: int, head: RequestHead) -> None: ...

    def interim(self, stream: int, head: ResponseHead) -> None: ...

    def response(self, stream: int, head: ResponseHead) -> None: ...

    def trailers(self, stream: int, trailers: Headers) -> None:
        """Before `stream_ended`."""


class MessageInbound(Inbound):
    """Reads heads as messages."""

    __slots__ = ("bodiless", "user")

    def __init__(self, core: Core, scratch: memoryview) -> None:
        super().__init__(core, scratch)
        self.user: MessageHandler = core.handler  # type: ignore[assignment]
        self.bodiless: set[int] = set()  # streams whose response has no body, whatever its length: HEAD

    def _request(self, id: int, fields: Fields) -> None:
        ended = self._block.ended
        head = messages.parse_request(fields, ended)
        stream = Stream(id, self._core.peer.initial_window, self._core.limits.initial_window)
        stream.is_connect = False
        stream.body_left = head.length if head.length > 0 else None
        self._start_receiving(stream, ended)
        self._core.streams.add(stream)
        self.user.request(id, head)
        if ended and not stream.gone:
            self.user.stream_ended(id)

    def _response(self, stream: Stream, fields: Fields) -> None:
        ended = self._block.ended
        head = messages.parse_response(fields, ended)
        head.ended = ended
        stream.is_connect = False
        if head.status < 200:
            if ended:
                raise Malformed("an interim response ends the stream")
            self._core.guard.spend(Excess.IGNORED)
            return self.user.interim(stream.id, head)
        bodiless = stream.id in self.bodiless or head.status in (204, 304)
        if not bodiless:
            if ended and head.length:
                raise Malformed("no body where content-length promises one")
            stream.body_left = head.length
        self._start_receiving(stream, ended)
        self._core.close_if_over(stream)
        self.user.response(stream.id, head)
        if ended:
            self.user.stream_ended(stream.id)

    def _trailers(self, stream: Stream, fields: Fields) -> None:
        if not self._block.ended:
            raise Malformed("HEADERS in the middle of a body")
        trailers = messages.parse_trailers(fields)
        if stream.body_left:
            raise Malformed("less DATA than content-length says")
        self.user.trailers(stream.id, trailers)
        self._ended(stream)


class MessageConnection(Connection):
    """One end of a connection of requests and responses."""

    __slots__ = ("_messages",)

    def __init__(
        self, role: Role, handler: MessageHandler, limits: Limits, scratch: memoryview, budget: Budget
    ) -> None:
        super().__init__(role, handler, limits, scratch, budget)
        self._messages = MessageInbound(self._core, scratch)
        self._inbound = self._messages
        self._reader = self._messages.reader

    def request(self, head: RequestHead, ended: bool) -> int:
        """Client: opens a stream. Raises TooManyStreams, GoingAway, or ValueError for a field that cannot be sent."""
        core = self._core
        if self.is_going_away:
            raise GoingAway("the connection is going away")
        if len(self._open) >= core.peer.max_concurrent_streams:
            raise TooManyStreams(f"the peer allows {core.peer.max_concurrent_streams} streams")
        stream = Stream(core.streams.next_id, core.peer.initial_window, core.limits.initial_window)
        stream.is_connect = False
        self._stage_head(stream, messages.request_fields(head), end=ended)
        core.streams.add(stream)
        if head.method == "HEAD":
            self._messages.bodiless.add(stream.id)
        if ended:
            self._ended_out(stream)
        return stream.id

    def interim(self, stream: int, status: int, headers: Headers) -> None:
        """Server: a response before the response."""
        found = self._open.get(stream)
        if found is not None and not found.head_sent:
            self._stage_head(found, [(":status", str(status)), *messages.sendable(headers)], end=False)
            found.head_sent = False

    def respond_with(self, stream: int, head: ResponseHead, ended: bool) -> None:
        """Server: the final head; see `respond`. Raises ValueError for a field that cannot be sent."""
        fields = messages.response_fields(head)
        self.respond(stream, head.status, fields[1:], end=ended)

    def trail(self, stream: int, trailers: Iterable[Field]) -> None:
        """The end of a message, with trailers."""
        found = self._open.get(stream)
        if found is not None and not found.ended_out:
            self._stage_head(found, messages.sendable(trailers), end=True)
            self._ended_out(found)

    def forget(self, stream: int) -> None:
        self._messages.bodiless.discard(stream)
