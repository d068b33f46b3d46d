"""The server's end of HTTP/1: requests of one connection, one after the other, each answered before the next is read.

What a client pipelines waits unread: unacknowledged, so the channel's window bounds it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from waypoint.channel import NOBODY, Bytes, Channel
from waypoint.http.chunked import ChunkReader
from waypoint.http.fields import MOST_HEAD, write_body, write_trailers
from waypoint.http.http1_heads import parse_request, write_response
from waypoint.http.message import UNKNOWN_LENGTH, Exchange, ProtocolError, RequestHead, ResponseHead
from waypoint.routing.request import Headers

HEAD_TIMEOUT = 30.0  # seconds from a head's first byte to its last: slow-loris ends here
IDLE_TIMEOUT = 3600.0  # seconds between requests: longer than any client's own pool keeps a connection
LINGER = 5.0  # seconds that a client may go on sending after its last response

HEAD, BODY, WAITING, OVER = range(4)
_empty_lines = re.compile(rb"(?:\r\n)+").match  # all at once: each by itself would copy the rest of the buffer

Serve = Callable[[RequestHead, "Http1Server"], Exchange]


class Http1Server:
    """The user of a channel, and the `Responder` of the request that is being served."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        serve: Serve,
        refused: Callable[[ProtocolError], None],
        finished: Callable[[], None],
    ) -> None:
        """`serve` gets each request; `refused` is told of what was no request; `finished` of the connection's end."""
        self._loop = loop
        self._channel = channel
        self._serve = serve
        self._refused = refused
        self._finished: Callable[[], None] | None = finished
        self._buffer = b""
        self._state = HEAD
        self._exchange: Exchange | None = None
        self._head: RequestHead | None = None
        self._left = 0  # of a body with a length
        self._chunks: ChunkReader | None = None
        self._keep = True
        self._client_ended = False
        self._responding = False
        self._chunked_out = False
        self._busy = False  # reading: answers that come meanwhile do not read on
        self._draining = False
        self._deadline: asyncio.TimerHandle | None = loop.call_later(IDLE_TIMEOUT, self._timed_out)
        channel.user = self

    # --- the channel

    def received(self, pieces: list[memoryview]) -> None:
        if self._state == OVER:
            self._channel.acknowledge(sum(map(len, pieces)))
            return
        if self._state == BODY and self._chunks is None and not self._buffer:
            pieces = self._take_body(pieces)
            if not pieces:
                return
        data = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        self._buffer = self._buffer + data if self._buffer else data
        self._read()

    def ended(self) -> None:
        self._client_ended = True
        if self._state == HEAD:
            self._close()
        elif self._state == BODY:
            self._lose("the client ended in the middle of a request")

    def lost(self, reason: str) -> None:
        self._lose(reason)

    def drained(self) -> None:
        if self._exchange is not None:
            self._exchange.client_drained()

    def drain(self) -> None:
        """The next response is the last one."""
        self._draining = True
        if self._state == HEAD and not self._buffer:
            self._close()

    # --- reading

    def _read(self) -> None:
        """As much of the buffer as can be used now."""
        if self._busy:
            return
        self._busy = True
        try:
            while self._buffer and self._state in (HEAD, BODY):
                before = len(self._buffer)
                if self._state == HEAD:
                    self._read_head()
                elif self._chunks is not None:
                    self._read_chunks()
                else:
                    data, self._buffer = self._buffer, b""
                    rest = self._take_body([memoryview(data)])
                    self._buffer = b"".join(rest)
                if len(self._buffer) == before:
                    break
        except ProtocolError as error:
            self._refuse(error)
        finally:
            self._busy = False

    def _read_head(self) -> None:
        buffer = self._buffer
        empty = _empty_lines(buffer)
        if empty is not None:  # before a request line they are to be ignored (RFC 9112 section 2.2)
            self._consume(empty.end())
            return
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or end > MOST_HEAD:
            self._check_beginning(buffer)
            return
        self._consume(end + 4)
        head, keep = parse_request(buffer[:end])
        self._start(head, keep)

    def _check_beginning(self, buffer: bytes) -> None:
        if len(buffer) > MOST_HEAD:
            raise ProtocolError(f"a head of more than {MOST_HEAD} bytes", 431)
        end = buffer.find(b"\n")
        if end >= 0 and buffer[end - 1 : end] != b"\r":
            raise ProtocolError("a line that does not end in CR LF")
        if end < 0 and buffer[:1] not in (b"\r",) and not buffer[:1].isalnum():
            raise ProtocolError("this is no HTTP request")
        self._wait(HEAD_TIMEOUT, restart=False)

    def _consume(self, size: int) -> None:
        self._buffer = self._buffer[size:]
        self._channel.acknowledge(size)

    def _start(self, head: RequestHead, keep: bool) -> None:
        self._stop_waiting()
        self._head, self._keep = head, keep and not self._draining
        self._responding = self._chunked_out = False
        self._state = BODY if head.length else WAITING
        self._left = max(head.length, 0)
        self._chunks = ChunkReader() if head.length == UNKNOWN_LENGTH else None
        exchange = self._serve(head, self)
        if not self._is_under_way(head):
            return  # it is answered already
        self._exchange = exchange
        if not head.length:
            exchange.request_ended(())

    def _is_under_way(self, head: RequestHead) -> bool:
        return self._state != OVER and self._head is head

    def _take_body(self, pieces: list[memoryview]) -> list[memoryview]:
        """Hands on what belongs to the body; returns what does not."""
        taken: list[memoryview] = []
        left = self._left
        rest: list[memoryview] = []
        for piece in pieces:
            if left >= len(piece):
                taken.append(piece)
                left -= len(piece)
            else:
                if left:
                    taken.append(piece[:left])
                rest.append(piece[left:])
                left = 0
        self._left = left
        self._hand_on(taken)
        if not left and self._state == BODY:
            self._request_over(())
        return rest

    def _read_chunks(self) -> None:
        assert self._chunks is not None
        buffer, chunks = self._buffer, self._chunks
        at, pieces, overhead = chunks.read(buffer, 0)
        self._buffer = buffer[at:]
        if overhead:
            self._channel.acknowledge(overhead)
        if pieces:
            self._hand_on(pieces)
        if chunks.done and self._state == BODY:
            self._request_over(chunks.trailers)

    def _hand_on(self, pieces: list[memoryview]) -> None:
        if self._exchange is not None:
            self._exchange.request_body(pieces)
        else:
            self._channel.acknowledge(sum(map(len, pieces)))

    def _request_over(self, trailers: Headers) -> None:
        self._state = WAITING
        if self._exchange is not None:
            self._exchange.request_ended(trailers)

    # --- answering (message.Responder)

    @property
    def congested(self) -> bool:
        return self._channel.congested

    def interim(self, status: int, headers: Headers) -> None:
        if self._head is not None and self._head.version == "HTTP/1.1" and not self._responding:
            self._channel.write(write_response(ResponseHead(status, headers), "", ""))

    def respond(self, head: ResponseHead, ended: bool) -> None:
        request = self._head
        if request is None or self._responding:
            return
        self._responding = True
        bodiless = request.method == "HEAD" or head.status in (204, 304)
        framing = ""
        if head.length is not None and head.status != 204:
            framing = f"content-length: {head.length}\r\n"
        elif ended and not bodiless:
            framing = "content-length: 0\r\n"
        elif not bodiless and request.version == "HTTP/1.1":
            self._chunked_out = True
            framing = "transfer-encoding: chunked\r\n"
        elif not bodiless:
            self._keep = False  # HTTP/1.0: the end of the connection is the end of the body
        if self._state == BODY or self._draining:
            self._keep = False  # the client is still sending what nobody waits for
        if not self._keep:
            framing += "connection: close\r\n"
        elif request.version == "HTTP/1.0":
            framing += "connection: keep-alive\r\n"
        self._channel.write(write_response(head, request.version, framing))
        if ended:
            self._chunked_out = False
            self._answered()

    def write(self, data: Bytes) -> None:
        if self._head is None:
            return
        for piece in write_body(data, self._chunked_out):
            self._channel.write(piece)

    def finish(self, trailers: Headers = ()) -> None:
        if self._head is None:
            return
        if self._chunked_out:
            self._channel.write(write_trailers(trailers))
        self._answered()

    def abort(self, reason: str) -> None:
        if self._state != OVER:
            self._exchange = None
            self._channel.reset()
            self._over()

    def acknowledge(self, size: int) -> None:
        self._channel.acknowledge(size)

    def upgrade(self, head: ResponseHead) -> Channel:
        self._channel.write(write_response(head, "", f"connection: upgrade\r\nupgrade: {head.upgrade}\r\n"))
        self._exchange, self._head = None, None
        self._over()
        return self._channel

    def early(self) -> bytes:
        """What came behind an upgrade request, not acknowledged yet."""
        data, self._buffer = self._buffer, b""
        return data

    # --- ends

    def _answered(self) -> None:
        """The response is complete; the request may not be."""
        self._exchange, self._head = None, None
        if not self._keep or self._client_ended:
            self._close()
            return
        self._state = HEAD
        self._wait(IDLE_TIMEOUT)
        if self._buffer and not self._busy:
            self._read()

    def _refuse(self, error: ProtocolError) -> None:
        """What is no (complete) request ends the connection: where the next one begins nobody knows."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_lost(error.reason)
        self._refused(error)
        if not self._responding:
            body = f"{error.reason}\n".encode()
            head = ResponseHead(error.status, (("content-type", "text/plain"),))
            extra = f"content-length: {len(body)}\r\nconnection: close\r\n"
            self._channel.write(write_response(head, "", extra) + body)
        self._close()

    def _close(self) -> None:
        """Our end; what the client still sends is thrown away until it has ended too."""
        if self._state == OVER:
            return
        self._channel.acknowledge(len(self._buffer))
        self._buffer = b""
        self._channel.end()
        self._over()
        if not self._client_ended:
            self._wait(LINGER)

    def _lose(self, reason: str) -> None:
        exchange, self._exchange = self._exchange, None
        if self._state != OVER:
            self._channel.reset()
            self._over()
        else:
            self._stop_waiting()
        if exchange is not None:
            exchange.client_lost(reason)

    def _over(self) -> None:
        self._state = OVER
        self._head = None
        self._stop_waiting()
        finished, self._finished = self._finished, None
        if finished is not None:
            finished()

    def _wait(self, seconds: float, restart: bool = True) -> None:
        if self._deadline is not None:
            if not restart and self._deadline.when() - self._loop.time() <= seconds:
                return
            self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, self._timed_out)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _timed_out(self) -> None:
        self._deadline = None
        if self._state == HEAD and self._buffer:
            self._refuse(ProtocolError(f"no complete head within {HEAD_TIMEOUT:g} s", 408))
        elif self._state == HEAD:
            self._close()
        elif self._state == OVER:
            self._channel.reset()
            self._channel.user = NOBODY
