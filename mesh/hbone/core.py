"""The state of one connection, and the few steps that both its directions share."""

from __future__ import annotations

from typing import Protocol

from .frames import (
    DEFAULT_WINDOW,
    LARGEST_STREAM,
    RST_STREAM,
    WINDOW_UPDATE,
    ConnectionFailed,
    ErrorCode,
    frame,
    number,
)
from .guard import Guard
from .limits import Limits, Role
from .settings import PeerSettings
from .staging import Staging
from .streams import Stream, StreamTable
from .windows import RETURN_SHIFT, Budget, ConnectionWindow, grown


class Handler(Protocol):
    """Who uses the connection. Calls come from `Connection.received` alone and must not call it.

    Everything else on the connection may be called from them, `reset` of the stream in question included: nothing more
    is then heard of that stream.
    """

    def request_received(self, stream: int, headers: dict[str, str], ended: bool) -> None:
        """Server: a well-formed request of any method, pseudo fields included. Answer with `respond` or `reset`."""

    def response_received(self, stream: int, status: int, headers: dict[str, str], ended: bool) -> None:
        """Client: the final response; interim ones (1xx) are not reported."""

    def data_received(self, stream: int, pieces: list[memoryview]) -> None:
        """Payload, in order. The views are valid during the call only. `acknowledge` once the app has taken it."""

    def stream_ended(self, stream: int) -> None:
        """The peer sends nothing more on this stream (END_STREAM)."""

    def stream_reset(self, stream: int, code: int) -> None:
        """The stream is over: the peer reset it, did not process it (GOAWAY), or broke the rules on it."""

    def stream_writable(self, stream: int) -> None:
        """`reserve` gave None for want of stream credit; now there is some."""

    def connection_writable(self) -> None:
        """`reserve` gave None for want of connection credit; now there is some."""

    def limits_changed(self) -> None:
        """The peer's SETTINGS are in force: `available_streams` may have changed."""

    def ping_acknowledged(self, payload: bytes) -> None: ...

    def going_away(self, last_stream: int, code: int, reason: bytes) -> None:
        """The peer's GOAWAY. Open streams above `last_stream` were not processed; `stream_reset` follows for each."""


class Core:
    """What a connection knows. `credit` is what we may send on all streams together."""

    __slots__ = (
        "budget",
        "credit",
        "failure",
        "going_away",
        "granted",
        "granted_requests",
        "growth_left",
        "guard",
        "handler",
        "last_accepted",
        "limits",
        "peer",
        "role",
        "staging",
        "streams",
        "turn",
        "waiting",
        "window",
    )

    def __init__(self, role: Role, handler: Handler, limits: Limits, budget: Budget) -> None:
        self.role, self.handler, self.limits = role, handler, limits
        self.staging = Staging(limits.staging, limits.control_room)
        self.streams = StreamTable(role)
        self.guard = Guard(limits.floods)
        self.peer = PeerSettings(role)
        self.window = ConnectionWindow(limits.connection_window)
        self.credit = self.granted = DEFAULT_WINDOW
        self.growth_left = limits.connection_window  # by which stream windows may still grow
        self.budget = budget  # likewise, for all connections that share it
        self.turn = 0  # counts calls of received()
        self.granted_requests = 0  # answered with 2xx
        self.waiting = False  # someone waits for connection credit
        self.going_away = False  # either side said GOAWAY
        self.last_accepted = LARGEST_STREAM  # what our GOAWAY said
        self.failure: ConnectionFailed | None = None

    def stage(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.stage_frames(frame(kind, flags, stream, payload))

    def stage_frames(self, frames: bytes) -> None:
        if not self.staging.put(frames):
            self.fail(ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "the peer asks and does not read the answers"))

    def fail(self, failure: ConnectionFailed) -> None:
        """The first failure counts; its GOAWAY is the last frame that leaves."""
        if self.failure is None:
            self.failure = failure
            self.staging.shut(self.last_processed, failure.code, failure.reason.encode())

    @property
    def last_processed(self) -> int:
        """What a GOAWAY of ours says: it never rises, and a server opens no streams."""
        return min(max(self.streams.highest, 0), self.last_accepted) if self.role is Role.SERVER else 0

    def reset(self, id: int, code: int) -> None:
        """Resets a stream, open or refused."""
        self.stage(RST_STREAM, 0, id, number(code))
        self.close(id, reset_by_us=True)

    def close(self, id: int, *, reset_by_us: bool = False) -> None:
        stream = self.streams.close(id, reset_by_us=reset_by_us)
        if stream is not None:
            self._grow_by(self.limits.initial_window - stream.window)

    def _grow_by(self, growth: int) -> None:
        self.growth_left -= growth
        self.budget.left -= growth

    def give_back(self) -> None:
        """The connection is over: what its windows have grown by is free for others."""
        for id in list(self.streams.open):
            self.close(id)

    def close_if_over(self, stream: Stream) -> None:
        if stream.ended_in and stream.ended_out:
            self.close(stream.id)

    def release(self, stream: Stream, size: int) -> None:
        """`size` received bytes are not held any more; their credit goes back once it is worth a frame."""
        stream.owed += size
        if stream.owed >= stream.window >> RETURN_SHIFT:
            self._return_credit(stream)

    def _return_credit(self, stream: Stream) -> None:
        """WINDOW_UPDATE for what the reader took, and for the window's growth."""
        unread = stream.window - stream.allowance - stream.owed
        most = min(self.limits.stream_window, stream.window + min(self.growth_left, self.budget.left))
        window = grown(stream.window, unread, stream.owed, self.turn - stream.turn, most)
        growth = window - stream.window
        self._grow_by(growth)
        increment = stream.owed + growth
        stream.window, stream.owed, stream.turn = window, 0, self.turn
        stream.allowance += increment
        self.stage(WINDOW_UPDATE, 0, stream.id, number(increment))
