"""The client's end of HTTP/2: many requests of one client identity to one endpoint on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mesh.hbone import ErrorCode, Role
from waypoint.channel import NOBODY, Channel
from waypoint.http.http2_end import Http2End, MessageStream
from waypoint.http.message import RequestHead, ResponseHead, ResponseUser


class Http2Request(MessageStream):
    """One request (message.Requester)."""

    __slots__ = ("_client", "_user")

    def __init__(self, client: Http2Client, stream: int, user: ResponseUser) -> None:
        super().__init__(client, stream)
        self._client = client
        self._user: ResponseUser | None = user

    def cancel(self) -> None:
        self._user = None
        self._backlog.clear()
        self.user = NOBODY
        self._client.reset(self._id, ErrorCode.CANCEL)

    def interim(self, head: ResponseHead) -> None:
        if self._user is not None:
            self._user.interim(head.status, head.headers)

    def response(self, head: ResponseHead) -> None:
        if self._user is not None:
            self._user.response(head)

    def refused(self, reason: str, reached: bool) -> None:
        user, self._user = self._user, None
        if user is not None:
            user.response_failed(reason, reached)

    # --- as the stream's user

    def received(self, pieces: list[memoryview]) -> None:
        if self._user is not None:
            self._user.response_body(pieces)
        else:
            self.acknowledge(sum(map(len, pieces)))

    def ended(self) -> None:
        user, self._user = self._user, None
        if user is not None:
            user.response_ended(self.trailers)
        if not self.out_ended:  # it answered without waiting for the rest
            self._client.reset(self._id, ErrorCode.CANCEL)

    def lost(self, reason: str) -> None:
        self.refused(reason, True)

    def drained(self) -> None:
        if self._user is not None:
            self._user.server_drained()


class Http2Client(Http2End[Http2Request]):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        room: Callable[[Http2Client], None],
        gone: Callable[[Http2Client], None],
        *,
        asking: bool = False,
    ) -> None:
        """`room`: a stream has ended, or the server allows more; `gone`: it takes no requests any more.

        `asking`: it takes none until the server has shown that it speaks HTTP/2, which begins with its SETTINGS.
        """
        super().__init__(loop, channel, Role.CLIENT)
        self._asking = asking
        self.speaks_otherwise = False  # its first bytes were no HTTP/2
        self._room = room
        self._left: Callable[[Http2Client], None] | None = gone
        self.idle_since = 0.0

    @property
    def available(self) -> int:
        """How many requests it takes now."""
        return 0 if self.closed or self._draining or self._asking else self._messages.available_streams

    @property
    def unproven(self) -> bool:
        """No request was sent: the server has not shown what it speaks."""
        return self._asking

    def give_up(self) -> None:
        """On a server that says nothing."""
        if self._asking:
            self._close("the server does not begin HTTP/2")

    def open(self, head: RequestHead, user: ResponseUser) -> Http2Request:
        """`available` must not be 0. Raises ValueError for a field that cannot be sent."""
        number = self._messages.request(head, ended=not head.length)
        request = self.streams[number] = Http2Request(self, number, user)
        request.out_ended = not head.length
        self.mark()
        return request

    # --- HTTP/2 says

    def interim(self, stream: int, head: ResponseHead) -> None:
        if stream in self.streams:
            self.streams[stream].interim(head)

    def response(self, stream: int, head: ResponseHead) -> None:
        if stream in self.streams:
            self.streams[stream].response(head)

    def stream_reset(self, stream: int, code: int) -> None:
        found = self.streams.get(stream)
        if found is None:
            return
        self.release(stream)
        reached = code != ErrorCode.REFUSED_STREAM  # then it was not processed (RFC 9113 section 8.7)
        found.refused(f"the server reset the stream (code {code})", reached)

    def stream_released(self, stream: int) -> None:
        self._messages.forget(stream)
        if self._draining and not self.streams:
            self.mark()
        self._room(self)

    def limits_changed(self) -> None:
        self._asking = False
        self._room(self)

    def _fail(self, reason: str) -> None:
        self.speaks_otherwise = self._asking
        super()._fail(reason)

    def going_away(self, last_stream: int, code: int, reason: bytes) -> None:
        self._draining = True
        self._leave()

    def _gone(self) -> None:
        self._leave()

    def _leave(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            left(self)
