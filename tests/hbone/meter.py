"""Counts flow control from outside: what one end was granted, from the frames that reached it, and what it used."""

from __future__ import annotations

import struct

from tests.hbone import wire

DEFAULT = 65535


class Meter:
    """Watches one end. `heard` gets the bytes that the end received, `said` those that it staged, in order."""

    def __init__(self) -> None:
        self.connection = DEFAULT
        self.initial = DEFAULT
        self.max_frame = 16384
        self.streams: dict[int, int] = {}
        self._heard = b""

    def heard(self, data: bytes) -> None:
        self._heard += data
        if wire.PREFACE.startswith(self._heard):
            return
        whole = 0
        for frame in wire.read(self._heard):
            whole += 9 + len(frame.payload)
            if frame.kind == wire.UPDATE and len(frame.payload) == 4:
                self._granted(frame.stream, struct.unpack(">I", frame.payload)[0] & 0x7FFFFFFF)
            elif frame.kind == wire.SETTINGS and not frame.flags & wire.ACK and len(frame.payload) % 6 == 0:
                for name, value in struct.iter_unpack(">HI", frame.payload):
                    self._setting(name, value)
        skipped = len(wire.PREFACE) if self._heard.startswith(wire.PREFACE) else 0
        self._heard = self._heard[skipped + whole :]

    def said(self, data: bytes) -> None:
        for frame in wire.read(data):
            assert len(frame.payload) <= self.max_frame, "a frame beyond the peer's MAX_FRAME_SIZE"
            if frame.kind == wire.HEADERS:
                self.streams.setdefault(frame.stream, self.initial)
            if frame.kind != wire.DATA or not frame.payload:
                continue
            self.connection -= len(frame.payload)
            self.streams[frame.stream] -= len(frame.payload)
            assert self.connection >= 0, "DATA beyond the connection's window"
            assert self.streams[frame.stream] >= 0, "DATA beyond the stream's window"

    def _granted(self, stream: int, increment: int) -> None:
        if stream:
            self.streams[stream] = self.streams.get(stream, self.initial) + increment
        else:
            self.connection += increment

    def _setting(self, name: int, value: int) -> None:
        if name == 4 and value < 1 << 31:
            for stream in self.streams:
                self.streams[stream] += value - self.initial
            self.initial = value
        elif name == 5 and 16384 <= value < 1 << 24:
            self.max_frame = value
