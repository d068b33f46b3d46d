"""Sockets: made inside a pod's network namespace, dialled without blocking, reset when a connection was reset.

The thread stays in the namespace where it made its last socket, so a run of dials for one pod costs one setns. Nothing
else in this process may make sockets without naming a namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import ClassVar

from ebpf.netns import setns
from mesh.model.address import SocketAddress, is_v6
from ztunnel.worker.loop import BROKEN, EDGES, OUT, Loop, Timer

KEEPALIVE_IDLE = 180  # seconds, seconds, probes: Istio's; a vanished peer is noticed after half an hour
KEEPALIVE_INTERVAL = 180
KEEPALIVE_PROBES = 9
LINGER_ZERO = struct.pack("ii", 1, 0)  # close() sends RST and drops what is unsent
IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY)
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Namespace:
    """A pod's network namespace, by descriptor (owned) and cookie (its name: unlike the number, never reused)."""

    _current: ClassVar[int | None] = None  # cookie of the namespace that the thread is in

    def __init__(self, fd: int, cookie: int) -> None:
        self._fd = fd
        self.cookie = cookie

    def socket(self, family: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A non-blocking socket. Raises OSError."""
        if self._fd < 0:
            raise OSError(errno.ENONET, "the pod's network namespace has been given up")
        if Namespace._current != self.cookie:
            setns(self._fd)
            Namespace._current = self.cookie
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def without_delay(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def keep_alive(sock: socket.socket) -> None:
    """Small writes leave at once, dead peers are noticed. Accepted sockets inherit this from their listener."""
    without_delay(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def reset(loop: Loop, sock: socket.socket) -> None:
    """Ends a connection with RST, so that the app sees an error and not a clean end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    except OSError:  # already disconnected
        pass
    loop.discard(sock)


def say(code: int) -> str:
    return os.strerror(code).lower()


class Dial:
    """One TCP connect in progress: ends in `done(socket)` or `failed(errno, sentence)`, or is cancelled."""

    __slots__ = ("_address", "_done", "_failed", "_loop", "_sock", "_timer", "told")

    def __init__(
        self,
        loop: Loop,
        address: SocketAddress,
        done: Callable[[socket.socket], None],
        failed: Callable[[int, str], None],
    ) -> None:
        self._loop = loop
        self._address = address
        self._done = done
        self._failed = failed
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self.told = 0  # events of the socket so far: their edges are not repeated to who takes it over

    def start(self, namespace: Namespace, timeout: float) -> None:
        """To another machine, as far as we know. May call back before it returns."""
        self._start(namespace, timeout, keep_alive)

    def start_inside(self, namespace: Namespace, timeout: float, prepare: Callable[[socket.socket], None]) -> None:
        """To a socket of the same network namespace: nothing can part the two, and most are connected at once.
        `prepare` gets the socket before it connects. May call back before it returns."""

        def prepare_inside(sock: socket.socket) -> None:
            without_delay(sock)
            prepare(sock)

        self._start(namespace, timeout, prepare_inside, inside=True)

    def _start(
        self, namespace: Namespace, timeout: float, prepare: Callable[[socket.socket], None], inside: bool = False
    ) -> None:
        address = self._address
        try:
            sock = namespace.socket(socket.AF_INET6 if is_v6(address.ip) else socket.AF_INET)
            self._sock = sock
            prepare(sock)
            code = sock.connect_ex((address.ip, address.port))
            if inside and code == errno.EINPROGRESS:
                code = sock.connect_ex((address.ip, address.port))  # what became of it: the kernel has done it inline
        except OSError as error:
            self._fail(error.errno or errno.EIO)
            return
        if code and code not in IN_PROGRESS:
            self._fail(code)
            return
        self._loop.watch(sock.fileno(), self._event, EDGES)
        if code:
            self._timer = self._loop.later(timeout, self._timed_out)
        else:
            self._succeed()

    def cancel(self) -> None:
        if self._sock is not None:
            reset(self._loop, self._sock)
            self._end()

    def crash(self, reason: str) -> None:
        self._fail(errno.EIO)

    def _event(self, event: int) -> None:
        self.told |= event
        if self._sock is None or not event & (OUT | BROKEN):
            return
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(code)
        elif event & OUT:
            self._succeed()

    def _timed_out(self) -> None:
        self._fail(errno.ETIMEDOUT)

    def _succeed(self) -> None:
        sock = self._sock
        self._end()
        assert sock is not None
        self._done(sock)

    def _fail(self, code: int) -> None:
        if self._sock is not None:
            self._loop.discard(self._sock)
        self._end()
        self._failed(code, f"cannot connect to {self._address}: {say(code)}")

    def _end(self) -> None:
        self._sock = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
