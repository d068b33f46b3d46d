"""The socket between the agent and a worker: 4 bytes of length (big-endian), then a message of feed.py as msgpack.

Descriptors travel with the first byte of the message that they belong to (unix(7), SCM_RIGHTS), so they are always
there when the message is complete. `Decoder` knows the format; the rest is non-blocking socket calls, for an epoll
loop (worker) and for any event loop that can watch a descriptor (agent).
"""

from __future__ import annotations

import os
import socket
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import msgspec

from ztunnel.feed import Closed, Connections, Opened, PodAdded, ToAgent, ToWorker
from ztunnel.outbox import Outbox

MAX_MESSAGE = 256 << 20  # the whole mesh in one message: xDS itself allows 200 MiB
MAX_DESCRIPTORS = 16  # of one message: PodAdded has at most 9; also the most that wait for the rest of theirs
MAX_BACKLOG = 4 << 20  # bytes of records that a worker keeps for an agent that does not read
MAX_UNSENT = 64 << 20  # of anything: answers, too, end where the agent cannot but be broken
RECEIVE_SIZE = 256 << 10
HEADER = 4
INT_SIZE = array("i").itemsize

M = TypeVar("M")
Received = tuple[M, tuple[int, ...]]


class ChannelBroken(Exception):
    """The other side has gone, or what it says is not of the format."""


def encode(message: ToWorker | ToAgent) -> bytearray:
    """A frame. Raises ChannelBroken when the message is larger than a receiver would take."""
    frame = bytearray(HEADER)
    _encoder.encode_into(message, frame, HEADER)
    if len(frame) - HEADER > MAX_MESSAGE:
        raise ChannelBroken(f"{type(message).__name__} has {len(frame)} bytes, more than {MAX_MESSAGE}")
    frame[:HEADER] = (len(frame) - HEADER).to_bytes(HEADER, "big")
    return frame


def descriptor_count(message: object) -> int:
    """How many descriptors travel with a message."""
    return 1 + len(message.sockets) if isinstance(message, PodAdded) else 0


def receive_descriptors(sock: socket.socket, size: int) -> tuple[bytes, list[int], bool]:
    """Bytes, descriptors (close-on-exec, unlike those of socket.recv_fds) and whether some did not fit."""
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * INT_SIZE)
    data, ancillary, flags, _ = sock.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % INT_SIZE])
    return data, descriptors.tolist(), bool(flags & socket.MSG_CTRUNC)


_encoder = msgspec.msgpack.Encoder()


class Decoder(Generic[M]):
    """Sans-IO: bytes and descriptors in, messages with their descriptors out."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()
        self._descriptors: deque[int] = deque()

    def feed(self, data: bytes, descriptors: Sequence[int] = ()) -> Iterator[Received[M]]:
        """What is complete now. The receiver owns the descriptors. Raises ChannelBroken."""
        self._buffer += data
        self._descriptors.extend(descriptors)
        if len(self._descriptors) > MAX_DESCRIPTORS:
            raise ChannelBroken(f"more than {MAX_DESCRIPTORS} descriptors came without their messages")
        start = 0
        try:
            while (end := self._frame_end(start)) is not None:
                with memoryview(self._buffer)[start + HEADER : end] as body:
                    message = self._message(body)
                start = end
                yield message, self._take(message)
        finally:
            del self._buffer[:start]

    def close(self) -> None:
        """Closes descriptors whose message never came."""
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _frame_end(self, start: int) -> int | None:
        if len(self._buffer) - start < HEADER:
            return None
        size = int.from_bytes(self._buffer[start : start + HEADER], "big")
        if size > MAX_MESSAGE:
            raise ChannelBroken(f"a message of {size} bytes is announced, more than {MAX_MESSAGE}")
        end = start + HEADER + size
        return end if end <= len(self._buffer) else None

    def _message(self, body: memoryview) -> M:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ChannelBroken(f"not a message: {error}") from error

    def _take(self, message: object) -> tuple[int, ...]:
        count = descriptor_count(message)
        if count > len(self._descriptors):
            raise ChannelBroken(f"PodAdded needs {count} descriptors, {len(self._descriptors)} came")
        return tuple(self._descriptors.popleft() for _ in range(count))


class _Channel(Generic[M]):
    """Receiving is the same on both sides."""

    def __init__(self, sock: socket.socket, decoder: msgspec.msgpack.Decoder[M]) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._decoder = Decoder(decoder)
        self._partial = memoryview(b"")  # the rest of a frame that has begun to leave

    def fileno(self) -> int:
        return self._socket.fileno()

    def receive(self) -> Iterator[Received[M]]:
        """All messages that are there, until the socket is empty. Raises ChannelBroken, also when the peer is gone."""
        while True:
            try:
                data, descriptors, truncated = receive_descriptors(self._socket, RECEIVE_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                raise ChannelBroken(f"the other side has gone: {error.strerror}") from error
            yield from self._decoder.feed(data, descriptors)
            if truncated:
                raise ChannelBroken(f"more than {MAX_DESCRIPTORS} descriptors came at once")
            if not data:
                raise ChannelBroken("the other side has gone")

    def close(self) -> None:
        self._socket.close()
        self._decoder.close()

    def _send(self, frame: memoryview, descriptors: tuple[int, ...] = ()) -> int:
        """How many bytes left; 0 when the socket is full."""
        try:
            if descriptors:
                return socket.send_fds(self._socket, [frame], list(descriptors))
            return self._socket.send(frame)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ChannelBroken(f"the other side has gone: {error.strerror}") from error

    def _flush_partial(self) -> bool:
        while self._partial:
            if not (sent := self._send(self._partial)):
                return False
            self._partial = self._partial[sent:]
        return True


class WorkerChannel(_Channel[ToWorker]):
    """The worker's end. Records for an agent that does not read are dropped beyond MAX_BACKLOG, and counted; the agent
    notices by itself that an answer to a question is missing."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, msgspec.msgpack.Decoder(ToWorker))
        self._frames: deque[bytearray] = deque()
        self.unsent = 0  # bytes of whole frames
        self.dropped = 0  # records of connections that began or ended

    def send(self, message: ToAgent) -> None:
        """Queued; `flush` sends."""
        if isinstance(message, Opened | Closed | Connections) and self.unsent > MAX_BACKLOG:
            if not isinstance(message, Connections):
                self.dropped += len(message.connections)
            return
        frame = encode(message)
        self._frames.append(frame)
        self.unsent += len(frame)

    def flush(self) -> bool:
        """Whether all has left; if not, call again when the socket is writable. Raises ChannelBroken."""
        while self._flush_partial():
            if not self._frames:
                return True
            frame = self._frames.popleft()
            self.unsent -= len(frame)
            self._partial = memoryview(frame)
        if self.unsent > MAX_UNSENT:
            raise ChannelBroken(f"{self.unsent} bytes wait for an agent that does not read")
        return False


class AgentChannel(_Channel[ToAgent]):
    """The agent's end: an `Outbox` in front of the socket; a message is encoded when its turn comes."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, msgspec.msgpack.Decoder(ToAgent))
        self.outbox = Outbox()

    def flush(self) -> bool:
        """Whether all has left; if not, call again when the socket is writable. Raises ChannelBroken."""
        while self._flush_partial():
            head = self.outbox.head()
            if head is None:
                return True
            message, descriptors = head
            frame = memoryview(encode(message))
            if not (sent := self._send(frame, descriptors)):
                return False
            self.outbox.take()
            self._partial = frame[sent:]
        return False
