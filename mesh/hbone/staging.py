"""The bytes that wait to be written out: one buffer per connection, filled by all streams, emptied by one TLS write.

DATA may fill the buffer up to its data room; all other frames have room of their own behind it, so that they never wait
for a slow network, and no more than that, so that a peer which asks without reading is found out. A connection that
carries little has a small buffer, so that idle ones cost little.
"""

from __future__ import annotations

from .frames import (
    DATA,
    END_STREAM,
    GOAWAY,
    HEAD_SIZE,
    SMALLEST_MAX_FRAME,
    TLS_RECORD,
    frame,
    number,
    pack_head,
)

CELL = TLS_RECORD - HEAD_SIZE
LONGEST_REASON = 256  # of the words in our GOAWAY
FAREWELL = HEAD_SIZE + 8 + LONGEST_REASON  # always kept free for the last GOAWAY
# Of the small buffer: one record of DATA, some frames of other kinds, and a cell to read into behind them. Without that
# cell, to read a few bytes while a CONNECT is staged takes the full buffer: 17 MB more for 5,000 quiet connections.
SMALL = 2 * TLS_RECORD + 2048


class Staging:
    """`size` bytes are staged. A reserved room lies behind them and is lost when anything else is staged."""

    __slots__ = ("_buffer", "_data_room", "_full", "_is_small", "_payload", "_room", "_shut", "_used", "size")

    def __init__(self, data_room: int, control_room: int) -> None:
        self._full = data_room, data_room + TLS_RECORD + control_room
        self._room = 0  # what the last reserve offered
        self._shut = False
        self._used = False  # the full buffer was needed since `tidy`
        self.size = 0
        self._take_small()
        self.set_peer_max_frame(SMALLEST_MAX_FRAME)

    def set_peer_max_frame(self, size: int) -> None:
        # The largest payload whose frame fills whole TLS records.
        self._payload = size // TLS_RECORD * TLS_RECORD - HEAD_SIZE

    def staged(self) -> memoryview:
        return self._buffer[: self.size]

    def clear(self) -> None:
        self.size = self._room = 0

    def tidy(self) -> None:
        """Call it now and then: a buffer that was not filled since the last call is exchanged for a small one."""
        if not self._used and not self.size and len(self._buffer) > SMALL + FAREWELL and not self._shut:
            self._take_small()
        self._used = False

    def _take_small(self) -> None:
        self._is_small = True
        self._data_room = min(TLS_RECORD, self._full[0])
        self._buffer = memoryview(bytearray(min(SMALL, self._full[1]) + FAREWELL))

    def _grow(self) -> None:
        """For frames other than DATA, twice as much: a burst of CONNECTs does not need the room of a transfer."""
        size = 2 * (len(self._buffer) - FAREWELL)
        if size >= self._full[1]:
            self._take_full()
        else:
            self._move_to(size)

    def _take_full(self) -> None:
        self._data_room, size = self._full
        self._is_small = False
        self._move_to(size)

    def _move_to(self, size: int) -> None:
        buffer = memoryview(bytearray(size + FAREWELL))
        buffer[: self.size] = self._buffer[: self.size]
        self._buffer = buffer
        self._used = True

    def put(self, data: bytes) -> bool:
        """Stages whole frames that are not DATA with a payload; False when there is no room for them."""
        if self._shut:
            return False
        end = self.size + len(data)
        if end > len(self._buffer) - FAREWELL:
            if not self._is_small:
                return False
            self._grow()
            return self.put(data)
        self._buffer[self.size : end] = data
        self.size = end
        self._room = 0
        return True

    def shut(self, last_stream: int, code: int, reason: bytes) -> None:
        """Stages the last GOAWAY, for which there is always room; nothing is staged after it."""
        if self._shut:
            return
        data = frame(GOAWAY, 0, 0, number(last_stream) + number(code) + reason[:LONGEST_REASON])
        self._buffer[self.size : self.size + len(data)] = data
        self.size += len(data)
        self._shut, self._room = True, 0
        self._data_room = 0

    def reserve(self, most: int) -> memoryview | None:
        """Room for up to `most` bytes of payload behind a frame head; None when the data room is full."""
        at = self.size + HEAD_SIZE
        room = self._data_room - at
        if room > self._payload:
            room = (room + HEAD_SIZE) // (self._payload + HEAD_SIZE) * self._payload
        elif room < CELL:
            if self._is_small and not self._shut:
                if at + CELL > len(self._buffer) - FAREWELL:
                    self._take_full()
                    return self.reserve(most)
            else:
                self._used = True
                if room <= -HEAD_SIZE:
                    return None
            room = CELL  # the buffer holds a cell more than its data room, so that no tiny reads fill it up
        if room > most:
            room = most
        self._room = room
        return self._buffer[at : at + room]

    def commit(self, stream: int, size: int, end: bool) -> None:
        """Frames the first `size` bytes of the room that was reserved last. Raises ValueError beyond that room."""
        if size > self._room:
            raise ValueError(f"{size} bytes committed where {self._room} are reserved")
        self._room = 0
        if size > self._payload:
            return self._split(stream, size, end)
        at = self.size
        pack_head(self._buffer, at, size << 8, end, stream)  # type DATA is 0, flag END_STREAM is 1
        self.size = at + HEAD_SIZE + size

    def _split(self, stream: int, size: int, end: bool) -> None:
        """Makes room for the heads of further frames: from the last to the first, each payload moves up in place."""
        buffer, most, start = self._buffer, self._payload, self.size + HEAD_SIZE
        last = (size - 1) // most
        for index in range(last, -1, -1):
            source = start + index * most
            length = min(most, size - index * most)
            target = source + index * HEAD_SIZE
            if index:
                buffer[target : target + length] = buffer[source : source + length]
            flags = END_STREAM if end and index == last else 0
            pack_head(buffer, target - HEAD_SIZE, length << 8 | DATA, flags, stream)
        self.size += size + (last + 1) * HEAD_SIZE
