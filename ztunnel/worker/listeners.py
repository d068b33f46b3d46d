"""Accepting: for all pods, bounded per turn, and with a plan for the day when descriptors run out."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
from collections.abc import Callable

from mesh.model.address import SocketAddress, from_kernel
from ztunnel.worker.loop import IN, Loop
from ztunnel.worker.sockets import OUT_OF_DESCRIPTORS, keep_alive, reset, say

ACCEPTS = 64  # per listener and turn, so that a storm at one pod does not stop the bytes of the others
MOST_AT_CLOSE = 4096  # the longest queue that a listener has
HEADROOM = 128  # descriptors (numbered from the lowest free one) that are left for dials, DNS and what the agent sends
PAUSE = 0.1  # seconds: descriptors come back when connections end

Accepted = Callable[[socket.socket, SocketAddress], None]

log = logging.getLogger("worker.listeners")


class Listeners:
    """Level-triggered, unlike everything else: what is not accepted in this turn is told again in the next."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._open: dict[socket.socket, Listener] = {}
        self._reserve = _spare()
        self._paused = False
        self.ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - HEADROOM
        self.pauses = 0

    def open(self, sock: socket.socket, accepted: Accepted) -> None:
        keep_alive(sock)
        listener = Listener(self, self._loop, sock, accepted)
        self._open[sock] = listener
        self._loop.watch(sock.fileno(), listener.event, 0 if self._paused else IN)

    def close(self, sock: socket.socket) -> None:
        """Connections that wait in its queue are accepted first: closing would reset them.

        Unregistered explicitly: the agent holds the same socket, so closing our descriptor would not do it.
        """
        listener = self._open.pop(sock, None)
        if listener is not None:
            self._loop.forget(sock.fileno())
            listener.accept(MOST_AT_CLOSE)
            sock.close()

    def close_all(self) -> None:
        for sock in list(self._open):
            self.close(sock)

    def exhausted(self, listener: Listener) -> None:
        """No descriptors: the first in the queue is told so with a reset, the others wait until some come back."""
        self.pauses += 1
        if self._paused:
            return
        log.error("out of file descriptors: accepting pauses for %g s at a time", PAUSE)
        if self._reserve >= 0:
            os.close(self._reserve)
            listener.shed()
            self._reserve = _spare()
        self._pause(True)
        self._loop.later(PAUSE, self._resume)

    def _resume(self) -> None:
        if self._reserve < 0:
            self._reserve = _spare()
        self._pause(False)

    def _pause(self, paused: bool) -> None:
        self._paused = paused
        for sock in self._open:
            self._loop.change(sock.fileno(), 0 if paused else IN)


class Listener:
    def __init__(self, listeners: Listeners, loop: Loop, sock: socket.socket, accepted: Accepted) -> None:
        self._listeners = listeners
        self._loop = loop
        self._sock = sock
        self._family = sock.family
        self._accepted = accepted

    def event(self, event: int) -> None:
        self.accept(ACCEPTS)

    def accept(self, most: int) -> None:
        for _ in range(most):
            try:
                # What socket.accept does, without asking the listener anew what family and type it has (3 us).
                descriptor, address = self._sock._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    self._listeners.exhausted(self)
                    return
                if error.errno == errno.EBADF:  # closed by what an accepted connection led to
                    return
                log.warning("a connection ended before it was accepted: %s", say(error.errno or 0))
                continue
            sock = socket.socket(self._family, socket.SOCK_STREAM, 0, descriptor)
            if descriptor >= self._listeners.ceiling:
                reset(self._loop, sock)
                self._listeners.exhausted(self)
                return
            self._admit(sock, SocketAddress(from_kernel(address[0]), address[1]))

    def _admit(self, sock: socket.socket, source: SocketAddress) -> None:
        sock.setblocking(False)
        try:
            self._accepted(sock, source)
        except Exception:  # a defect of ours: this connection must not hang, nor end the others
            log.exception("internal error with a connection from %s", source)
            reset(self._loop, sock)

    def shed(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        reset(self._loop, sock)


def _spare() -> int:
    """A descriptor to give up when there are no others; -1 when there is none even for that."""
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def local_address(sock: socket.socket) -> SocketAddress:
    """The address that the peer has connected to. Raises OSError when the connection is gone already."""
    address = sock.getsockname()
    return SocketAddress(from_kernel(address[0]), address[1])
