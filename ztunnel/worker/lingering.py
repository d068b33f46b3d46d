"""Closing so that the last words arrive: with something unread in its queue the kernel answers close() with RST, and
that makes the peer forget a GOAWAY or an alert which it has not read yet (RFC 9113 section 5.4.1, RFC 9112 section
9.6).
"""

from __future__ import annotations

import socket

from ztunnel.worker.loop import HANGUP, Loop, Timer

MOST = 256  # at once; each holds a descriptor and nothing else. Beyond it a close is a close
SECONDS = 1.0  # a peer that reads has read by then
BYTES = 16 << 20  # what a peer may have under way: the window of a connection
PIECE = 256 << 10

_nowhere = memoryview(bytearray(PIECE))


class Lingering:
    """Sockets whose tunnels have ended."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._open: set[_Closing] = set()
        self.skipped = 0  # ends that may not have arrived, because so many lingered

    def __len__(self) -> int:
        return len(self._open)

    def close(self, sock: socket.socket) -> None:
        """Takes over a watched socket: says FIN, and drops what still comes until the peer's FIN. Bounded in all."""
        try:
            sock.shutdown(socket.SHUT_WR)
        except OSError:  # the peer has gone
            self._loop.discard(sock)
            return
        if len(self._open) >= MOST:
            self.skipped += 1
            self._loop.discard(sock)
            return
        closing = _Closing(self._loop, sock, self._open)
        self._open.add(closing)
        closing.start()


class _Closing:
    __slots__ = ("_left", "_loop", "_open", "_sock", "_timer")

    def __init__(self, loop: Loop, sock: socket.socket, others: set[_Closing]) -> None:
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._open = others
        self._left = BYTES
        self._timer: Timer = loop.later(SECONDS, self._close)

    def start(self) -> None:
        assert self._sock is not None
        self._loop.hand_over(self._sock.fileno(), self._event)
        self._event(HANGUP)

    def _event(self, event: int) -> None:
        """One piece per turn: others must have theirs."""
        if self._sock is None:
            return
        try:
            size = self._sock.recv_into(_nowhere, PIECE, socket.MSG_TRUNC)  # TCP copies nothing then
        except BlockingIOError:
            return
        except OSError:
            size = 0
        self._left -= size
        if size and self._left > 0:
            self._loop.soon(self._again)
        else:
            self._close()

    def _again(self) -> None:
        self._event(HANGUP)

    def _close(self) -> None:
        if self._sock is not None:
            self._timer.cancel()
            self._open.discard(self)
            self._loop.discard(self._sock)
            self._sock = None

    def crash(self, reason: str) -> None:
        self._close()
