"""The server's end of HTTP/2: each stream is a request of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mesh.hbone import ErrorCode, Role
from waypoint.channel import NOBODY, Channel
from waypoint.http.http2_end import Http2End, MessageStream
from waypoint.http.message import Exchange, RequestHead, ResponseHead
from waypoint.routing.request import Headers

Serve = Callable[[RequestHead, "Http2Responder"], Exchange]


class Http2Responder(MessageStream):
    """One request and its answer (message.Responder)."""

    __slots__ = ("_exchange", "_responded", "_server")

    def __init__(self, server: Http2Server, stream: int) -> None:
        super().__init__(server, stream)
        self._server = server
        self._exchange: Exchange | None = None
        self._responded = False

    def start(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def interim(self, status: int, headers: Headers) -> None:
        if self._server.carries(self._id) and not self._responded:
            self._server.say_interim(self._id, status, headers)

    def respond(self, head: ResponseHead, ended: bool) -> None:
        if self._responded:
            return
        self._responded = True
        if ended:
            self._exchange = None
        self._server.say_response(self._id, head, ended)

    def finish(self, trailers: Headers = ()) -> None:
        self._exchange = None
        super().finish(trailers)

    def _say_end(self) -> None:
        super()._say_end()
        if not self.in_ended:  # the rest of the request is not wanted (RFC 9113 section 8.1)
            self._server.reset(self._id, ErrorCode.NO_ERROR)

    def abort(self, reason: str) -> None:
        self._exchange = None
        self._backlog.clear()
        self.user = NOBODY
        self._server.reset(self._id, ErrorCode.INTERNAL_ERROR)

    def upgrade(self, head: ResponseHead) -> Channel:
        raise NotImplementedError  # HTTP/2 has no 101

    # --- as the stream's user

    def received(self, pieces: list[memoryview]) -> None:
        if self._exchange is not None:
            self._exchange.request_body(pieces)
        else:
            self.acknowledge(sum(map(len, pieces)))

    def ended(self) -> None:
        if self._exchange is not None:
            self._exchange.request_ended(self.trailers)

    def lost(self, reason: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_lost(reason)

    def drained(self) -> None:
        if self._exchange is not None:
            self._exchange.client_drained()


class Http2Server(Http2End[Http2Responder]):
    def __init__(
        self, loop: asyncio.AbstractEventLoop, channel: Channel, serve: Serve, finished: Callable[[], None]
    ) -> None:
        super().__init__(loop, channel, Role.SERVER)
        self._serve = serve
        self._finished = finished

    def say_interim(self, stream: int, status: int, headers: Headers) -> None:
        self._messages.interim(stream, status, headers)
        self.mark()

    def say_response(self, stream: int, head: ResponseHead, ended: bool) -> None:
        if not self.carries(stream):
            return
        self._messages.respond_with(stream, head, ended)
        self.mark()
        if ended:
            found = self.streams[stream]
            found.out_ended = True
            if found.in_ended or head.status >= 300:  # the engine has reset what goes on (see Connection.respond)
                self.release(stream)

    # --- HTTP/2 says

    def request(self, stream: int, head: RequestHead) -> None:
        found = self.streams[stream] = Http2Responder(self, stream)
        exchange = self._serve(head, found)
        if self.carries(stream) and not found.out_ended:
            found.start(exchange)

    def stream_released(self, stream: int) -> None:
        if self._draining and not self.streams:
            self.mark()

    def _gone(self) -> None:
        self._finished()
