"""One HTTP/2 connection of CONNECT tunnels, without IO (RFC 9113). The package's docstring says how to use it."""

from __future__ import annotations

from collections.abc import Iterable

from .core import Core, Handler
from .frames import (
    DATA,
    DEFAULT_WINDOW,
    END_STREAM,
    GOAWAY,
    PING,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFailed,
    ErrorCode,
    number,
    pack_settings,
)
from .headers import EMPTY_TABLE, Field, encode, header_frames
from .inbound import Inbound
from .limits import CLIENT_LIMITS, SERVER_LIMITS, Limits, Role
from .settings import own_settings
from .staging import LONGEST_REASON
from .streams import Stream
from .windows import Budget


class TooManyStreams(Exception):
    """The peer allows no further stream now; `Handler.limits_changed` or the end of a stream may change that."""


class GoingAway(Exception):
    """This connection opens no streams any more."""


class Connection:
    """One end of a connection: bytes in, calls of the handler, bytes out."""

    __slots__ = ("_core", "_inbound", "_open", "_reader", "_reserved", "_staging")

    def __init__(
        self,
        role: Role,
        handler: Handler,
        limits: Limits | None = None,
        scratch: memoryview | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`scratch`: a receive buffer that all connections of a thread share; without it the connection has its own.
        `budget`: by how much the windows of all connections that share it may grow.
        """
        limits = limits or (CLIENT_LIMITS if role is Role.CLIENT else SERVER_LIMITS)
        if scratch is None:
            scratch = memoryview(bytearray(limits.receive_room + limits.max_header_list))
        self._core = Core(role, handler, limits, budget or Budget(limits.connection_window))
        self._inbound = Inbound(self._core, scratch)
        self._staging = self._core.staging
        self._reader = self._inbound.reader
        self._open = self._core.streams.open
        self._reserved: Stream | None = None  # for whom room was reserved last
        if role is Role.CLIENT:
            self._core.stage_frames(PREFACE)
        self._core.stage(SETTINGS, 0, 0, pack_settings(own_settings(role, limits)))
        if limits.connection_window > DEFAULT_WINDOW:
            self._core.stage(WINDOW_UPDATE, 0, 0, number(limits.connection_window - DEFAULT_WINDOW))

    # --- bytes in

    def receive_buffer(self) -> memoryview:
        """Where decrypted bytes go; valid until the next `received` of any connection that shares the scratch."""
        return self._reader.buffer()

    def received(self, size: int) -> None:
        """Takes the first `size` bytes of the last `receive_buffer`. Raises ConnectionFailed."""
        core = self._core
        core.turn += 1
        if core.failure is None:
            try:
                self._reader.read(size)
            except ConnectionFailed as failure:
                core.fail(failure)
            window = core.window
            if window.allowance <= window.low:
                core.stage(WINDOW_UPDATE, 0, 0, number(window.refill()))
        if core.failure is not None:
            raise core.failure

    # --- bytes out

    @property
    def staged(self) -> int:
        """How many bytes wait to be written out."""
        return self._staging.size

    def outgoing(self) -> memoryview:
        """All that is staged. Write all of it, then call `sent`, and call nothing else in between."""
        return self._staging.staged()

    def sent(self) -> None:
        """What `outgoing` returned has been taken."""
        self._staging.clear()

    def reserve(self, stream: int) -> memoryview | None:
        """Room for payload; None when there is no credit or no room in the staging buffer.

        Then `starved` says which: a starved stream waits for `stream_writable`; any other for `connection_writable` or
        for the next `sent`, whichever comes first.
        """
        core, found = self._core, self._open.get(stream)
        if found is None or not found.head_sent or found.ended_out:
            return None
        credit = found.credit
        if credit <= 0:
            found.waiting = True
            return None
        if core.credit < credit:
            credit = core.credit
            if credit <= 0:
                core.waiting = True
                return None
        self._reserved = found
        return self._staging.reserve(credit)

    def starved(self, stream: int) -> bool:
        """Whether a stream's own credit is what keeps it from sending: only `stream_writable` ends that."""
        found = self._open.get(stream)
        return found is not None and found.credit <= 0

    def commit(self, stream: int, size: int, end: bool = False) -> None:
        """Sends the first `size` bytes of the room reserved last, which must have been for this stream."""
        if not size:
            if end:
                self.end(stream)
            return
        found = self._reserved
        if found is None or found.id != stream or found.gone:
            raise ValueError(f"nothing is reserved for stream {stream}")
        self._staging.commit(stream, size, end)
        found.credit -= size
        self._core.credit -= size
        if end:
            self._ended_out(found)

    # --- streams

    def open(self, authority: str, headers: Iterable[Field] = ()) -> int:
        """Client: sends CONNECT, returns its stream. Raises TooManyStreams, GoingAway, or ValueError for a header."""
        core = self._core
        if self.is_going_away:
            raise GoingAway("the connection is going away")
        if len(self._open) >= core.peer.max_concurrent_streams:
            raise TooManyStreams(f"the peer allows {core.peer.max_concurrent_streams} streams")
        stream = Stream(core.streams.next_id, core.peer.initial_window, core.limits.initial_window)
        self._stage_head(stream, [(":method", "CONNECT"), (":authority", authority), *headers], end=False)
        core.streams.add(stream)
        return stream.id

    def respond(self, stream: int, status: int, headers: Iterable[Field] = (), end: bool = False) -> None:
        """Server: the final response.

        A refusal (`end`, not 2xx) that comes while the request goes on says also that the rest is not wanted, with
        RST_STREAM NO_ERROR (RFC 9113 section 8.1): the stream is over.
        """
        found = self._open.get(stream)
        if found is None:
            return
        if found.head_sent or not 200 <= status <= 999:
            raise ValueError(f"stream {stream} cannot be answered with {status} now")
        self._stage_head(found, [(":status", str(status)), *headers], end=end)
        self._core.granted_requests += status < 300
        if end:
            self._ended_out(found)
            if status >= 300 and not found.gone:
                self.reset(stream, ErrorCode.NO_ERROR)

    def end(self, stream: int) -> None:
        """Nothing more will be sent on this stream; the peer may go on."""
        found = self._open.get(stream)
        if found is None or found.ended_out:
            return
        if not found.head_sent:
            raise ValueError(f"stream {stream} ends before its response")
        self._core.stage(DATA, END_STREAM, stream)
        self._ended_out(found)

    def reset(self, stream: int, code: ErrorCode) -> None:
        """Breaks the stream off both ways; nothing more is heard of it."""
        if stream in self._open:
            self._core.reset(stream, code)

    def acknowledge(self, stream: int, size: int) -> None:
        """The app took `size` bytes of what `data_received` brought."""
        found = self._open.get(stream)
        if found is None or found.ended_in:
            return
        self._core.release(found, size)

    def _stage_head(self, stream: Stream, fields: list[Field], *, end: bool) -> None:
        block, peer = encode(fields), self._core.peer
        if peer.small_table:
            block, peer.small_table = EMPTY_TABLE + block, False
        stream.head_sent = True
        self._core.stage_frames(header_frames(stream.id, block, peer.max_frame, end_stream=end))

    def _ended_out(self, stream: Stream) -> None:
        stream.ended_out = True
        self._core.close_if_over(stream)

    # --- the connection

    def ping(self, payload: bytes) -> None:
        """Eight bytes that the peer returns. Also starts a new period for floods and deadlines: call it regularly."""
        self._inbound.new_period()
        self._staging.tidy()
        self._core.stage(PING, 0, 0, payload)

    def go_away(self, code: ErrorCode = ErrorCode.NO_ERROR, reason: bytes = b"") -> None:
        """Accepts no further streams; open ones go on. What comes later is refused, so the peer can safely retry it."""
        core = self._core
        core.going_away = True
        core.last_accepted = core.last_processed
        core.stage(GOAWAY, 0, 0, number(core.last_accepted) + number(code) + reason[:LONGEST_REASON])

    def release(self) -> None:
        """It is over and closed, and will not be used any more."""
        self._core.give_back()

    @property
    def open_streams(self) -> int:
        return len(self._open)

    @property
    def available_streams(self) -> int:
        """How many streams `open` would open now."""
        if self.is_going_away:
            return 0
        return max(0, self._core.peer.max_concurrent_streams - len(self._open))

    @property
    def is_going_away(self) -> bool:
        """Either end said GOAWAY, the connection failed, or its stream numbers are used up."""
        core = self._core
        return core.going_away or core.failure is not None or core.streams.exhausted

    @property
    def failure(self) -> ConnectionFailed | None:
        """Why the connection is over: raised by `received`, or set because the peer did not read its answers."""
        return self._core.failure
