"""What an app has asked its waypoint over HTTP/1, and has no answer to yet.

A waypoint that goes takes nothing with it but the exchanges that are under way. Of these, a request of which no byte
was answered is asked once more if that is right (RFC 9110 section 9.2.2), or answered with 503. For that, both
directions are followed as far as it takes to know where messages end. At the first doubt (another protocol, a client
that pipelines, a message that cannot be read) it is given up for good: then a lost waypoint resets the connection.
"""

from __future__ import annotations

import re

MOST = 16 << 10  # bytes of a request that are kept; of a larger one only its length is followed
MOST_HEAD = 64 << 10  # of a response
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
_END = b"\r\n\r\n"
_may_be_request = re.compile(rb"[A-Z]{1,20}(?: |$)").match
_request_line = re.compile(rb"([A-Z]{1,20}) [^ \r\n]+ HTTP/1\.[01]\r\n").match
_closes = re.compile(rb"\r\nconnection:[^\r\n]*close", re.IGNORECASE).search
_status_line = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r]").match
_length = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE).search
_coding = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE).search
_chunk_size = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t;\r]").match

IDLE, ASKED, ANSWERED, DOUBT = range(4)


class Unanswered:
    """`said` and `heard` are called with all bytes of the app and of the waypoint, in their order."""

    __slots__ = (
        "_asked", "_before", "_chunks", "_closes", "_heard", "_interim", "_left", "_method", "_owed", "_size", "_state",
        "_to_repeat",
    )  # fmt: skip

    def __init__(self, to_repeat: bool = True) -> None:
        """`to_repeat`: whether the first request may be asked once more; one that was may not."""
        self._state = IDLE
        self._before = False  # there was an exchange, and it is complete
        self._to_repeat = to_repeat
        self._asked = b""  # the request; not all of it when it is larger than MOST
        self._size = 0  # of its head; 0 while that is not complete
        self._method = b""
        self._owed = 0  # bytes of its body that have not come; -1 when nobody knows
        self._interim = False  # there was a 1xx
        self._closes = False  # the last response said that it is the last one
        self._heard = b""  # of the response, what could not be read yet
        self._chunks = False  # its body comes in chunks
        self._left = 0  # of its body, or of a chunk with its line end

    @property
    def doubtful(self) -> bool:
        return self._state == DOUBT

    @property
    def at_rest(self) -> bool:
        """Nothing is under way: the successor may go on with the connection."""
        return self._state == IDLE

    @property
    def overlooked(self) -> bool:
        """A waypoint that ends now has closed a connection at rest without a word: the app may ask again, or has in
        this very moment."""
        return self._before and not self._closes and (self.at_rest or self.answerable)

    def repeatable(self) -> bytes:
        """The request, if the waypoint's successor may be asked the same; else nothing."""
        whole = self._state == ASKED and self._size and not self._owed and not self._heard and not self._interim
        return self._asked if whole and self._to_repeat and self._method in IDEMPOTENT else b""

    @property
    def answerable(self) -> bool:
        """Whether a response would be taken for the one to the request."""
        return self._state == ASKED and self._size > 0 and not self._heard

    # --- the app

    def said(self, data: bytes | memoryview) -> None:
        """A view is copied only as far as it is kept."""
        if self._state == DOUBT:
            return
        if self._state == ANSWERED:
            self._doubt()
        elif self._state == ASKED and self._size:
            self._body(data)
        else:
            self._state = ASKED
            self._asked += bytes(data)
            self._head()

    def _head(self) -> None:
        end = self._asked.find(_END)
        if end < 0:
            if len(self._asked) > MOST or not _may_be_request(self._asked[:21]):
                self._doubt()
            return
        head = self._asked[: end + 4]
        line = _request_line(head)
        if line is None:
            self._doubt()
            return
        self._method, self._size = line[1], len(head)
        body = self._asked[len(head) :]
        length = _length(head)
        self._owed = -1 if _coding(head) else int(length[1]) if length else 0
        self._asked = head
        if body:
            self._body(body)

    def _body(self, data: bytes | memoryview) -> None:
        if self._owed < 0:
            return
        if len(data) > self._owed:  # it pipelines
            self._doubt()
            return
        self._owed -= len(data)
        if len(self._asked) + len(data) > MOST:
            self._to_repeat = False
        else:
            self._asked += bytes(data)

    # --- the waypoint

    def heard(self, pieces: list[memoryview]) -> None:
        if self._state == ANSWERED and self._left > 0 and not self._heard:
            size = sum([len(piece) for piece in pieces])
            if size < self._left:
                self._left -= size
                return
        if self._state != DOUBT:
            self._heard += b"".join(pieces)
            self._read()

    def _read(self) -> None:
        if (self._state == ASKED and not self._size) or self._state == IDLE:
            self._doubt()
        while self._state == ASKED and self._heard:
            if not self._response():
                return
        if self._state == ANSWERED:
            self._answer()

    def _response(self) -> bool:
        """Whether a head was complete."""
        end = self._heard.find(_END)
        if end < 0:
            if len(self._heard) > MOST_HEAD:
                self._doubt()
            return False
        head, self._heard = self._heard[: end + 4], self._heard[end + 4 :]
        line = _status_line(head)
        status = line[1] if line else b"101"
        if status == b"101":
            self._doubt()
        elif status.startswith(b"1"):
            self._interim = True
        else:
            self._begin(head, status)
        return True

    def _begin(self, head: bytes, status: bytes) -> None:
        length = _length(head)
        self._state = ANSWERED
        self._chunks, self._left = False, 0
        self._closes = _closes(head) is not None
        if self._method == b"HEAD" or status in (b"204", b"304"):
            return
        if _coding(head):
            self._chunks = True
        elif length:
            self._left = int(length[1])
        else:
            self._doubt()  # it ends with the connection

    def _answer(self) -> None:
        while self._state == ANSWERED:
            size = min(self._left, len(self._heard))
            self._left -= size
            self._heard = self._heard[size:]
            if self._left or (self._chunks and not self._next_chunk()):
                return
            if not self._chunks and not self._left:
                self._complete()

    def _next_chunk(self) -> bool:
        """Whether its size was there, or all that follows the last one."""
        end = self._heard.find(b"\r\n")
        size = _chunk_size(self._heard) if end >= 0 else None
        last = self._heard.find(_END, end) if size is not None and not int(size[1], 16) else end
        if last < 0:
            if len(self._heard) > MOST:
                self._doubt()
            return False
        if size is None:
            self._doubt()
            return False
        if last == end and int(size[1], 16):
            self._left = int(size[1], 16) + 2
            self._heard = self._heard[end + 2 :]
        else:
            self._chunks = False
            self._heard = self._heard[last + 4 :]
        return True

    def _complete(self) -> None:
        if self._heard or self._owed:
            self._doubt()
            return
        self._state, self._asked, self._size, self._interim = IDLE, b"", 0, False
        self._before = self._to_repeat = True

    def _doubt(self) -> None:
        self._state, self._asked, self._heard = DOUBT, b"", b""
