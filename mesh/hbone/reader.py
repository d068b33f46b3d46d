"""Cuts received bytes into frames.

DATA flows through: its payload is handed on as views of the receive buffer, in pieces as they come, neighbours of one
stream together. All other frames are handed on whole. The DATA that is as it should be takes a short path through the
loop; everything that is not goes to the sink's `irregular_data`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .frames import (
    CONTINUATION,
    DATA,
    END_STREAM,
    HEAD_SIZE,
    PADDED,
    PREFACE,
    SETTINGS,
    ConnectionFailed,
    ErrorCode,
    unpack_head,
)
from .streams import Stream
from .windows import ConnectionWindow

STREAM_BITS = 0x7FFFFFFF
ROOM_FOR_PADDING = 1024  # the most that a HEADERS frame has besides its block, generously


class Sink(Protocol):
    """Who gets the frames. Any call may raise ConnectionFailed and so end the reading."""

    def data_ended(self, stream: Stream) -> None: ...

    def irregular_data(self, stream: int, flags: int, size: int, payload: int) -> Stream | None:
        """DATA of `size` bytes, `payload` without padding, that needs a look; None when its payload is not wanted."""

    def frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None: ...

    def unknown_frame(self) -> None: ...


class FrameReader:
    """`scratch` is where bytes are received; readers of one thread may share it: what is left over is kept apart."""

    __slots__ = (
        "_deliver",
        "_ending",
        "_kept",
        "_largest_whole",
        "_left",
        "_max_frame",
        "_preface_left",
        "_scratch",
        "_sink",
        "_skip",
        "_stream",
        "_streams",
        "_window",
        "expected",
    )

    def __init__(
        self,
        sink: Sink,
        streams: dict[int, Stream],
        window: ConnectionWindow,
        scratch: memoryview,
        deliver: Callable[[int, list[memoryview]], None],
        *,
        max_frame: int,
        largest_block: int,
        expects_preface: bool,
    ) -> None:
        self._sink, self._streams, self._window, self._scratch = sink, streams, window, scratch
        self._deliver = deliver
        self._max_frame = max_frame
        self._largest_whole = min(largest_block + ROOM_FOR_PADDING, len(scratch) // 2)
        self._preface_left = len(PREFACE) if expects_preface else 0
        self._kept = b""  # the beginning of a frame
        self._left = 0  # of the payload of the DATA frame under way
        self._skip = 0  # bytes that nobody wants
        self._stream: Stream | None = None  # whose DATA frame is under way
        self._ending = 0
        self.expected: int | None = SETTINGS  # the only frame type that may come now; None for any

    @property
    def unfinished(self) -> bool:
        """Whether a frame other than DATA, or a header block, has begun and not ended."""
        return len(self._kept) >= HEAD_SIZE or self.expected == CONTINUATION

    def buffer(self) -> memoryview:
        """Where to put what is received next."""
        kept = len(self._kept)
        if kept:
            self._scratch[:kept] = self._kept
            return self._scratch[kept:]
        return self._scratch

    def read(self, size: int) -> None:
        """Takes the first `size` bytes of the last `buffer()`. Raises ConnectionFailed."""
        end = len(self._kept) + size
        at = self._check_preface(end) if self._preface_left else 0
        at = self._read_frames(at, end)
        self._kept = bytes(self._scratch[at:end]) if at < end else b""

    def _read_frames(self, at: int, end: int) -> int:  # noqa: C901 - the byte path: calls would cost more than branches
        scratch, sink, streams = self._scratch, self._sink, self._streams
        window, deliver = self._window, self._deliver
        left, stream = self._left, self._stream
        self._left = 0
        pieces: list[memoryview] = []  # all of `stream`
        while True:
            if left:
                take = end - at
                if take >= left:
                    take = left
                elif take <= 0:
                    break
                pieces.append(scratch[at : at + take])
                at += take
                left -= take
                if left:
                    break
                if self._ending and stream is not None:
                    if not stream.gone:
                        deliver(stream.id, pieces)
                    pieces = []
                    sink.data_ended(stream)
            if self._skip:
                take = min(self._skip, end - at)
                at += take
                self._skip -= take
            if end - at < HEAD_SIZE:
                break
            word, flags, id = unpack_head(scratch, at)
            size = word >> 8
            coming = streams.get(id)
            if pieces and coming is not stream:
                if stream is not None and not stream.gone:
                    deliver(stream.id, pieces)
                pieces = []
            if (
                coming is not None
                and not word & 0xFF
                and flags & ~END_STREAM == 0
                and (size or flags)
                and size <= self._max_frame
                and size <= coming.allowance
                and size <= window.allowance
                and coming.body_left is None
                and self.expected is None
            ):
                at += HEAD_SIZE
                if size:
                    coming.allowance -= size
                    window.allowance -= size
                    stream, left, self._ending = coming, size, flags
                    continue
                if pieces:
                    deliver(coming.id, pieces)
                    pieces = []
                sink.data_ended(coming)
                continue
            if pieces and stream is not None:
                if not stream.gone:
                    deliver(stream.id, pieces)
                pieces = []
            used = self._irregular(at, end)
            if not used:
                break
            at += used
            left, stream = self._left, self._stream
            self._left = 0
        if pieces and stream is not None and not stream.gone:
            deliver(stream.id, pieces)
        self._left, self._stream = left, stream
        return at

    def _irregular(self, at: int, end: int) -> int:
        """A frame that is not plain DATA: how many bytes of it are used up now; 0 when it has to be whole first."""
        word, flags, id = unpack_head(self._scratch, at)
        size: int = word >> 8
        kind: int = word & 0xFF
        id &= STREAM_BITS
        self._check(kind, size)
        if kind == DATA:
            return self._irregular_data(flags, id, size, at, end)
        if kind > CONTINUATION:
            self._sink.unknown_frame()
            self._skip = size
            return HEAD_SIZE
        if size > self._largest_whole:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, f"a frame of type {kind} with {size} bytes")
        start = at + HEAD_SIZE
        if end - start < size:
            return 0
        self._sink.frame(kind, flags, id, bytes(self._scratch[start : start + size]))
        return HEAD_SIZE + size

    def _check(self, kind: int, size: int) -> None:
        if size > self._max_frame:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes, beyond {self._max_frame}")
        if self.expected is not None and kind != self.expected:
            raise ConnectionFailed(
                ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} where only type {self.expected} may come"
            )

    def _irregular_data(self, flags: int, id: int, size: int, at: int, end: int) -> int:
        used, padding, payload = HEAD_SIZE, 0, size
        if flags & PADDED:
            if not size:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "padded DATA without a pad length")
            if end - at <= HEAD_SIZE:
                return 0
            used, padding = HEAD_SIZE + 1, self._scratch[at + HEAD_SIZE]
            payload = size - 1 - padding
            if payload < 0:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "DATA with more padding than frame")
        stream = self._stream = self._sink.irregular_data(id, flags, size, payload)
        self._ending = flags & END_STREAM
        self._left, self._skip = (0, payload + padding) if stream is None else (payload, padding)
        if stream is not None and not payload and self._ending:
            self._sink.data_ended(stream)
        return used

    def _check_preface(self, end: int) -> int:
        done = len(PREFACE) - self._preface_left
        take = min(self._preface_left, end)
        if self._scratch[:take] != PREFACE[done : done + take]:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "the connection does not begin as HTTP/2 does")
        self._preface_left -= take
        return take
