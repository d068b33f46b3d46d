"""The client's end of HTTP/1: one request at a time on a connection that is kept for the next one."""

from __future__ import annotations

from collections.abc import Callable

from waypoint.channel import NOBODY, Bytes, Channel
from waypoint.http.chunked import ChunkReader
from waypoint.http.fields import MOST_HEAD, write_body, write_trailers
from waypoint.http.http1_heads import parse_response, write_request
from waypoint.http.message import UNKNOWN_LENGTH, ProtocolError, RequestHead, ResponseHead, ResponseUser
from waypoint.routing.request import Headers

MOST_INTERIM = 16  # 1xx before a response

IDLE, HEAD, LENGTH, CHUNKS, TO_END, OVER = range(6)


class Http1Client:
    """The user of a channel, and the `Requester` of its present request. `idle` is called when it is free for the next
    one, `gone` when it is not usable any more; each request ends in one of the two."""

    __slots__ = (
        "_buffer", "_busy", "_channel", "_chunked_out", "_chunks", "_gone", "_head", "_idle", "_interims", "_keep",
        "_left", "_response_ended", "_sent", "_state", "_user", "idle_since",
    )  # fmt: skip

    def __init__(
        self, channel: Channel, idle: Callable[[Http1Client], None], gone: Callable[[Http1Client], None]
    ) -> None:
        self._channel = channel
        self._idle = idle
        self._gone: Callable[[Http1Client], None] | None = gone
        self._user: ResponseUser | None = None
        self._head: RequestHead | None = None
        self._buffer = b""
        self._state = IDLE
        self._left = 0
        self._chunks: ChunkReader | None = None
        self._keep = True
        self._sent = True  # the request, all of it
        self._response_ended = True
        self._chunked_out = False
        self._busy = False
        self._interims = 0
        self.idle_since = 0.0
        channel.user = self

    @property
    def usable(self) -> bool:
        return self._state == IDLE and not self._buffer

    # --- requests (message.Requester)

    def open(self, head: RequestHead, user: ResponseUser) -> None:
        """`usable` must hold. The body follows by `write` and `finish`, unless there is none. Raises ValueError."""
        data = write_request(head)
        self._user, self._head = user, head
        self._state = HEAD
        self._sent = not head.length
        self._response_ended = False
        self._chunked_out = head.length == UNKNOWN_LENGTH
        self._interims = 0
        self._channel.write(data)

    @property
    def congested(self) -> bool:
        return self._channel.congested

    def write(self, data: Bytes) -> None:
        for piece in write_body(data, self._chunked_out):
            self._channel.write(piece)

    def finish(self, trailers: Headers = ()) -> None:
        if self._sent or self._state == OVER:
            return
        if self._chunked_out:
            self._channel.write(write_trailers(trailers))
        self._sent = True
        if self._response_ended:
            self._done()

    def cancel(self) -> None:
        """HTTP/1 knows no other way to take a request back than to break the connection."""
        self._user = None
        if self._state not in (IDLE, OVER):
            self._channel.reset()
            self._over()

    def acknowledge(self, size: int) -> None:
        self._channel.acknowledge(size)

    def close(self) -> None:
        """When it is idle."""
        if self._state != OVER:
            self._channel.end()
            self._channel.user = NOBODY
            self._over()

    # --- the channel

    def received(self, pieces: list[memoryview]) -> None:
        if self._state == OVER:
            return
        if self._state == LENGTH and not self._buffer:
            if sum(map(len, pieces)) <= self._left:
                self._take(pieces)
                return
        elif self._state == TO_END:
            assert self._user is not None
            self._user.response_body(pieces)
            return
        data = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        self._buffer = self._buffer + data if self._buffer else data
        self._read()

    def ended(self) -> None:
        if self._state == TO_END:
            self._keep = False
            self._complete(())
        elif self._state in (IDLE, OVER):
            self.close()
        else:
            self._fail("the server ended the connection before its response was complete")

    def lost(self, reason: str) -> None:
        if self._state == OVER:
            return
        self._fail(reason)

    def drained(self) -> None:
        if self._user is not None:
            self._user.server_drained()

    # --- reading

    def _read(self) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            while self._buffer and self._state in (HEAD, LENGTH, CHUNKS, TO_END):
                before = len(self._buffer)
                self._read_some()
                if len(self._buffer) == before:
                    break
            if self._buffer and self._state == IDLE:
                self._fail("the server sent something that nobody asked for")
        except ProtocolError as error:
            self._fail(f"the server broke HTTP: {error.reason}")
        finally:
            self._busy = False

    def _read_some(self) -> None:
        if self._state == HEAD:
            self._read_head()
        elif self._state == CHUNKS:
            self._read_chunks()
        else:
            size = len(self._buffer) if self._state == TO_END else min(self._left, len(self._buffer))
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            if self._state == LENGTH:
                self._take([memoryview(data)])
            elif self._user is not None:
                self._user.response_body([memoryview(data)])

    def _read_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > MOST_HEAD:
            if len(self._buffer) > MOST_HEAD:
                raise ProtocolError(f"a head of more than {MOST_HEAD} bytes")
            return
        response, keep, chunked = parse_response(self._buffer[:end])
        self._buffer = self._buffer[end + 4 :]
        self._channel.acknowledge(end + 4)
        user, head = self._user, self._head
        assert user is not None
        assert head is not None
        if response.status == 101:
            self._switch(user, head, response)
        elif response.status < 200:
            self._interims += 1
            if self._interims > MOST_INTERIM:
                raise ProtocolError(f"more than {MOST_INTERIM} interim responses")
            user.interim(response.status, response.headers)
        else:
            self._keep = keep
            self._begin(user, head, response, chunked)

    def _begin(self, user: ResponseUser, head: RequestHead, response: ResponseHead, chunked: bool) -> None:
        bodiless = head.method == "HEAD" or response.status in (204, 304) or (response.length == 0 and not chunked)
        if bodiless:
            self._state = LENGTH
            self._left = 0
        elif chunked:
            self._state, self._chunks = CHUNKS, ChunkReader()
        elif response.length is not None:
            self._state, self._left = LENGTH, response.length
        else:
            self._state = TO_END
        response.ended = bodiless
        user.response(response)
        if bodiless and self._state == LENGTH:
            self._complete(())

    def _switch(self, user: ResponseUser, head: RequestHead, response: ResponseHead) -> None:
        if not head.upgrade or response.upgrade.lower() != head.upgrade.lower():
            raise ProtocolError("it switches to a protocol that it was not asked for")
        early, self._buffer = self._buffer, b""
        self._user = None
        self._over()
        user.upgraded(response, self._channel, early)

    def _take(self, pieces: list[memoryview]) -> None:
        assert self._user is not None
        self._left -= sum(map(len, pieces))
        self._user.response_body(pieces)
        if not self._left and self._state == LENGTH:
            self._complete(())

    def _read_chunks(self) -> None:
        assert self._chunks is not None
        assert self._user is not None
        buffer, chunks = self._buffer, self._chunks
        at, pieces, overhead = chunks.read(buffer, 0)
        self._buffer = buffer[at:]
        if overhead:
            self._channel.acknowledge(overhead)
        if pieces:
            self._user.response_body(pieces)
        if chunks.done and self._state == CHUNKS:
            self._complete(chunks.trailers)

    # --- ends

    def _complete(self, trailers: Headers) -> None:
        user, self._user = self._user, None
        self._response_ended = True
        if user is not None:
            user.response_ended(trailers)
        if self._sent:
            self._done()
        elif self._state != OVER:  # it answered without waiting for the rest
            self._channel.reset()
            self._over()

    def _done(self) -> None:
        if self._state == OVER:
            return
        if not self._keep:
            self._state = IDLE
            self.close()
            return
        self._state, self._head, self._chunks = IDLE, None, None
        if not self._buffer:
            self._idle(self)

    def _fail(self, reason: str) -> None:
        user, self._user = self._user, None
        if self._state != OVER:
            self._channel.reset()
            self._over()
        if user is not None:
            user.response_failed(reason, True)

    def _over(self) -> None:
        self._state = OVER
        gone, self._gone = self._gone, None
        if gone is not None:
            gone(self)
