"""What the peer's frames do (RFC 9113 sections 5, 6 and 8)."""

from __future__ import annotations

from collections.abc import Callable

from . import messages
from .core import Core
from .frames import (
    ACK,
    CONTINUATION,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITISED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ConnectionFailed,
    ErrorCode,
    Setting,
    StreamFailed,
    unpack_settings,
)
from .guard import Excess
from .header_decoder import HeaderDecoder, HeadersTooLarge
from .headers import BlockAssembler, Fields
from .limits import Role
from .reader import STREAM_BITS, FrameReader
from .streams import Stream
from .windows import widened

BYTES_PER_UPDATE = 512  # sent bytes that justify one WINDOW_UPDATE; peers return credit in far larger steps
UPDATES_PER_STREAM = 4
MOST_SETTINGS = 32  # in one frame; each may touch every stream
ON_CONNECTION, ON_STREAM, ON_EITHER = range(3)
# Where a frame type belongs, and the size that it has to have.
SHAPES: dict[int, tuple[int, int | None]] = {
    HEADERS: (ON_STREAM, None),
    PRIORITY: (ON_STREAM, 5),
    RST_STREAM: (ON_STREAM, 4),
    SETTINGS: (ON_CONNECTION, None),
    PUSH_PROMISE: (ON_STREAM, None),
    PING: (ON_CONNECTION, 8),
    GOAWAY: (ON_CONNECTION, None),
    WINDOW_UPDATE: (ON_EITHER, 4),
    CONTINUATION: (ON_STREAM, None),
}


def protocol_error(reason: str) -> ConnectionFailed:
    return ConnectionFailed(ErrorCode.PROTOCOL_ERROR, reason)


def size_error(reason: str) -> ConnectionFailed:
    return ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, reason)


class Inbound:
    """The reader's sink: changes the state, answers what needs an answer, tells the handler."""

    __slots__ = (
        "_acknowledged",
        "_begun",
        "_block",
        "_core",
        "_decoder",
        "_earned_from",
        "_granted_before",
        "_handler",
        "_on_frame",
        "_periods",
        "_unfinished",
        "reader",
    )

    def __init__(self, core: Core, scratch: memoryview) -> None:
        limits = core.limits
        self._core, self._handler = core, core.handler
        self._decoder = HeaderDecoder(limits.max_header_list)
        self._block = BlockAssembler(limits.max_header_list, limits.floods.fragments)
        self._earned_from = 0
        self._periods = 0
        self._granted_before = 0  # requests, when the period began
        self._acknowledged = False  # our SETTINGS
        self._begun = 0  # frames and header blocks that were begun
        self._unfinished: int | None = None  # the one that was under way when the period began
        self.reader = FrameReader(
            self,
            core.streams.open,
            core.window,
            scratch,
            core.handler.data_received,
            max_frame=limits.max_frame,
            largest_block=limits.max_header_list,
            expects_preface=core.role is Role.SERVER,
        )
        self._on_frame: dict[int, Callable[[int, int, bytes], None]] = {
            HEADERS: self._headers,
            PRIORITY: self._priority,
            RST_STREAM: self._rst_stream,
            SETTINGS: self._settings,
            PUSH_PROMISE: self._push_promise,
            PING: self._ping,
            GOAWAY: self._goaway,
            WINDOW_UPDATE: self._window_update,
            CONTINUATION: self._continuation,
        }

    # --- the reader's calls

    def data_ended(self, stream: Stream) -> None:
        if stream.gone:
            return
        if stream.body_left:
            return self._stream_failed(stream.id, ErrorCode.PROTOCOL_ERROR)
        self._ended(stream)

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        place, size = SHAPES[kind]
        if place != ON_EITHER and (stream == 0) != (place == ON_CONNECTION):
            raise protocol_error(f"a frame of type {kind} on stream {stream}")
        if size is not None and len(payload) != size:
            raise size_error(f"a frame of type {kind} with {len(payload)} bytes, not {size}")
        if kind != CONTINUATION:
            self._begun += 1
        try:
            self._on_frame[kind](stream, flags, payload)
        except StreamFailed as failure:
            self._stream_failed(failure.stream, failure.code)
        if self._core.failure is not None:
            raise self._core.failure

    def unknown_frame(self) -> None:
        self._core.guard.spend(Excess.IGNORED)

    def irregular_data(self, id: int, flags: int, size: int, payload: int) -> Stream | None:
        if not id:
            raise protocol_error("DATA on stream 0")
        self._core.window.take(size)
        if not payload and not flags & END_STREAM:
            self._core.guard.spend(Excess.EMPTY_DATA)
        if self._core.streams.is_idle(id):
            raise protocol_error(f"DATA on stream {id}, which is idle")
        try:
            stream = self._receiving(id)
            if stream is not None:
                self._take_data(stream, size, payload)
        except StreamFailed as failure:
            self._stream_failed(failure.stream, failure.code)
            return None
        return stream

    def _receiving(self, id: int) -> Stream | None:
        stream = self._core.streams.open.get(id)
        if stream is None:
            if not self._core.streams.was_reset(id):
                raise StreamFailed(id, ErrorCode.STREAM_CLOSED, "DATA on a closed stream")
            return None
        if stream.ended_in:
            raise StreamFailed(id, ErrorCode.STREAM_CLOSED, "DATA after END_STREAM")
        if not stream.head_received:
            raise StreamFailed(id, ErrorCode.PROTOCOL_ERROR, "DATA before the response")
        return stream

    def _take_data(self, stream: Stream, size: int, payload: int) -> None:
        if size > stream.allowance:
            raise StreamFailed(stream.id, ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the stream's window")
        stream.allowance -= size
        if size > payload:
            self._core.release(stream, size - payload)  # nobody holds padding
        if stream.body_left is not None:
            stream.body_left -= payload
            if stream.body_left < 0:
                raise StreamFailed(stream.id, ErrorCode.PROTOCOL_ERROR, "more DATA than Content-Length says")

    # --- streams

    def _stream_failed(self, id: int, code: ErrorCode) -> None:
        """Answers a stream error of the peer. It counts as a reset: it makes us drop work just so (CVE-2025-8671)."""
        known = id in self._core.streams.open
        self._core.reset(id, code)
        if known:
            self._handler.stream_reset(id, code)
        self._core.guard.spend(Excess.RESETS, self._core.granted_requests - self._granted_before)

    def _ended(self, stream: Stream) -> None:
        stream.end_in()
        self._core.close_if_over(stream)
        self._handler.stream_ended(stream.id)

    # --- HEADERS and CONTINUATION

    def _headers(self, id: int, flags: int, payload: bytes) -> None:
        if self._core.role is Role.SERVER and not id & 1:
            raise protocol_error(f"a client opens stream {id}, which is even")
        if self._core.role is Role.CLIENT and self._core.streams.is_idle(id):
            raise protocol_error(f"HEADERS on stream {id}, which is idle")
        self._take_block(id, self._block.begin(id, flags, _fragment(flags, payload)))

    def _continuation(self, id: int, flags: int, payload: bytes) -> None:
        self._take_block(id, self._block.add(id, flags, payload))

    def _take_block(self, id: int, block: bytes | None) -> None:
        self.reader.expected = CONTINUATION if block is None else None
        if block is None:
            return
        try:
            fields: Fields | None = self._decoder.decode(block)
        except HeadersTooLarge:
            fields = None
        stream = self._core.streams.open.get(id)
        try:
            if stream is None:
                self._open_or_ignore(id, fields)
            elif stream.ended_in:
                raise StreamFailed(id, ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
            elif fields is None:
                raise StreamFailed(id, ErrorCode.PROTOCOL_ERROR, "a header list beyond the advertised size")
            elif stream.head_received:
                self._trailers(stream, fields)
            else:
                self._response(stream, fields)
        except messages.Malformed as malformed:
            raise StreamFailed(id, ErrorCode.PROTOCOL_ERROR, str(malformed)) from None

    def _open_or_ignore(self, id: int, fields: Fields | None) -> None:
        streams = self._core.streams
        if streams.was_reset(id):
            return self._core.guard.spend(Excess.IGNORED)
        if id <= streams.highest:
            code = ErrorCode.STREAM_CLOSED if streams.was_closed(id) else ErrorCode.PROTOCOL_ERROR
            raise ConnectionFailed(code, f"HEADERS on stream {id}, which is not open any more")
        streams.skip_to(id)
        full = len(streams.open) >= self._core.limits.max_concurrent_streams
        if full or id > self._core.last_accepted:
            raise StreamFailed(id, ErrorCode.REFUSED_STREAM, "beyond what was granted")
        if fields is None:
            raise StreamFailed(id, ErrorCode.PROTOCOL_ERROR, "a header list beyond the advertised size")
        self._request(id, fields)

    def _request(self, id: int, fields: Fields) -> None:
        headers = messages.request(fields)
        stream = Stream(id, self._core.peer.initial_window, self._core.limits.initial_window)
        stream.is_connect = headers[":method"] == "CONNECT"
        ended = self._block.ended
        if not stream.is_connect:  # in CONNECT a Content-Length says nothing (RFC 9110 section 9.3.6)
            self._expect_body(stream, headers, ended)
        self._start_receiving(stream, ended)
        self._core.streams.add(stream)
        self._handler.request_received(id, headers, ended)

    def _response(self, stream: Stream, fields: Fields) -> None:
        headers = messages.response(fields)
        status, ended = int(headers[":status"]), self._block.ended
        if status < 200:
            if ended:
                raise messages.Malformed("an interim response ends the stream")
            return self._core.guard.spend(Excess.IGNORED)
        stream.is_connect = status < 300
        if not stream.is_connect:
            self._expect_body(stream, headers, ended)
        self._start_receiving(stream, ended)
        self._core.close_if_over(stream)
        self._handler.response_received(stream.id, status, headers, ended)

    def _expect_body(self, stream: Stream, headers: dict[str, str], ended: bool) -> None:
        stream.body_left = messages.content_length(headers)
        if ended and stream.body_left:
            raise messages.Malformed("no body where Content-Length promises one")

    def _start_receiving(self, stream: Stream, ended: bool) -> None:
        stream.start_receiving()
        stream.turn = self._core.turn
        if ended:
            stream.end_in()

    def _trailers(self, stream: Stream, fields: Fields) -> None:
        if stream.connected:
            raise messages.Malformed("HEADERS in a tunnel (section 8.5)")
        if not self._block.ended:
            raise messages.Malformed("HEADERS in the middle of a body")
        messages.trailers(fields)
        if stream.body_left:
            raise messages.Malformed("less DATA than Content-Length says")
        self._ended(stream)

    # --- the rest

    def _priority(self, id: int, flags: int, payload: bytes) -> None:
        self._core.guard.spend(Excess.PRIORITIES)

    def _push_promise(self, id: int, flags: int, payload: bytes) -> None:
        raise protocol_error("PUSH_PROMISE, which nobody enabled")

    def _rst_stream(self, id: int, flags: int, payload: bytes) -> None:
        streams = self._core.streams
        if streams.is_idle(id):
            raise protocol_error(f"RST_STREAM on stream {id}, which is idle")
        stream = streams.open.get(id)
        if stream is None:
            return self._core.guard.spend(Excess.IGNORED)
        self._core.close(id)
        self._handler.stream_reset(id, int.from_bytes(payload, "big"))
        if not stream.head_sent:
            self._core.guard.spend(Excess.RESETS, self._core.granted_requests - self._granted_before)

    def _settings(self, id: int, flags: int, payload: bytes) -> None:
        self._core.guard.spend(Excess.SETTINGS)
        if flags & ACK:
            if payload:
                raise size_error("an acknowledgement of SETTINGS with a payload")
            if self.reader.expected is not None:
                raise protocol_error("the first frame acknowledges SETTINGS")
            self._acknowledged = True
            return
        if len(payload) % 6:
            raise size_error(f"SETTINGS with {len(payload)} bytes, not a multiple of 6")
        if len(payload) > 6 * MOST_SETTINGS:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, f"SETTINGS with {len(payload) // 6} values")
        self.reader.expected = None
        for name, value in unpack_settings(payload):
            before = self._core.peer.initial_window
            self._core.peer.apply(name, value)
            if name == Setting.INITIAL_WINDOW_SIZE:
                self._move_windows(value - before)
        self._core.staging.set_peer_max_frame(self._core.peer.max_frame)
        self._core.stage(SETTINGS, ACK, 0)
        self._wake_streams()
        self._handler.limits_changed()

    def _move_windows(self, difference: int) -> None:
        for stream in self._core.streams.open.values():
            try:
                stream.credit = widened(stream.credit, difference)
            except OverflowError as error:
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, str(error)) from None

    def _wake_streams(self) -> None:
        for stream in list(self._core.streams.open.values()):
            if stream.waiting and stream.credit > 0 and not stream.gone:
                stream.waiting = False
                self._handler.stream_writable(stream.id)

    def _ping(self, id: int, flags: int, payload: bytes) -> None:
        self._core.guard.spend(Excess.PINGS)
        if flags & ACK:
            return self._handler.ping_acknowledged(payload)
        self._core.stage(PING, ACK, 0, payload)

    def _goaway(self, id: int, flags: int, payload: bytes) -> None:
        if len(payload) < 8:
            raise size_error(f"GOAWAY with {len(payload)} bytes")
        last = int.from_bytes(payload[:4], "big") & STREAM_BITS
        self._core.going_away = True
        self._handler.going_away(last, int.from_bytes(payload[4:8], "big"), payload[8:])
        if self._core.role is Role.CLIENT:
            for stream in [id for id in self._core.streams.open if id > last]:
                if stream in self._core.streams.open:
                    self._core.close(stream, reset_by_us=True)
                    self._handler.stream_reset(stream, ErrorCode.REFUSED_STREAM)

    def _window_update(self, id: int, flags: int, payload: bytes) -> None:
        increment = int.from_bytes(payload, "big") & STREAM_BITS
        self._core.guard.spend(Excess.WINDOW_UPDATES, self._updates_earned())
        if not id:
            return self._widen_connection(increment)
        if self._core.streams.is_idle(id):
            raise protocol_error(f"WINDOW_UPDATE on stream {id}, which is idle")
        stream = self._core.streams.open.get(id)
        if stream is not None:
            self._widen_stream(stream, increment)

    def _widen_stream(self, stream: Stream, increment: int) -> None:
        if not increment:
            raise StreamFailed(stream.id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of nothing")
        try:
            stream.credit = widened(stream.credit, increment)
        except OverflowError as error:
            raise StreamFailed(stream.id, ErrorCode.FLOW_CONTROL_ERROR, str(error)) from None
        if stream.waiting and stream.credit > 0:
            stream.waiting = False
            self._handler.stream_writable(stream.id)

    def _widen_connection(self, increment: int) -> None:
        if not increment:
            raise protocol_error("WINDOW_UPDATE of nothing")
        try:
            self._core.credit = widened(self._core.credit, increment)
        except OverflowError as error:
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, str(error)) from None
        self._core.granted += increment
        if self._core.waiting:
            self._core.waiting = False
            self._handler.connection_writable()

    def _updates_earned(self) -> int:
        return self._work_done() - self._earned_from

    def _work_done(self) -> int:
        sent = self._core.granted - self._core.credit
        return sent // BYTES_PER_UPDATE + self._core.streams.count * UPDATES_PER_STREAM

    def new_period(self) -> None:
        """What the peer has owed for a whole period ends the connection (RFC 9113 sections 6.5.3 and 10.5)."""
        self._periods += 1
        self._granted_before = self._core.granted_requests
        if self._periods > 1 and not self._acknowledged:
            self._core.fail(ConnectionFailed(ErrorCode.SETTINGS_TIMEOUT, "SETTINGS are not acknowledged"))
        unfinished = self._begun if self.reader.unfinished else None
        if unfinished is not None and unfinished == self._unfinished:
            self._core.fail(ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "a header block or frame does not end"))
        self._unfinished = unfinished
        self._core.guard.new_period()
        self._earned_from = self._work_done()


def _fragment(flags: int, payload: bytes) -> bytes:
    """The part of a HEADERS payload that belongs to the header block."""
    start = (1 if flags & PADDED else 0) + (5 if flags & PRIORITISED else 0)
    if len(payload) < start:
        raise size_error("HEADERS too short for its flags")
    padding = payload[0] if flags & PADDED else 0
    if padding > len(payload) - start:
        raise protocol_error("HEADERS with more padding than frame")
    return payload[start : len(payload) - padding]
