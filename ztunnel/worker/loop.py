"""The event loop: edge-triggered epoll, timers, and the order in which a turn does its work.

Each descriptor is registered once, for everything; handlers read until the kernel has nothing more. A turn is
1. streams that had to wait for room (before whoever filled it: otherwise a bulk transfer starves them),
2. events, 3. those that stopped in the middle of a flow, 4. timers, 5. one flush of every tunnel that something was
staged for, 6. closing what was discarded (not earlier: its number must not be reused while events of it are queued).
"""

from __future__ import annotations

import heapq
import logging
import select
import socket
import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

IN = select.EPOLLIN
OUT = select.EPOLLOUT
HANGUP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
BROKEN = select.EPOLLERR
EDGES = IN | OUT | select.EPOLLRDHUP | select.EPOLLET
MAX_EVENTS = 256  # of one turn: enough to batch, few enough that flushes are not late
PURGE_TIMERS = 4096  # cancelled timers that may lie in the heap before it is cleaned

Handler = Callable[[int], None]
Callback = Callable[[], None]

log = logging.getLogger("worker.loop")


class Flushable(Protocol):
    """Something that collects output during a turn; at its end all of it leaves at once."""

    def flush(self) -> None: ...


class Timer:
    """One call in the future; `cancel` may be called at any time, also after it fired."""

    __slots__ = ("_callback", "_loop")

    def __init__(self, loop: Loop, callback: Callback) -> None:
        self._loop = loop
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        if self._callback is not None:
            self._callback = None
            self._loop.timer_cancelled()

    def fire(self) -> bool:
        """Calls back unless cancelled; says whether it did."""
        callback, self._callback = self._callback, None
        if callback is None:
            return False
        callback()
        return True


class Loop:
    """Runs until `stop`. Not thread-safe: everything happens on the thread that runs it."""

    def __init__(self) -> None:
        self.now = time.monotonic()  # of this turn
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._first: list[Callback] = []
        self._ready: list[Callback] = []
        self._dirty: list[Flushable] = []
        self._discarded: list[socket.socket] = []
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._sequence = count()
        self._running = True

    def watch(self, fd: int, handler: Handler, events: int = EDGES) -> None:
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def hand_over(self, fd: int, handler: Handler) -> None:
        """The next owner of a descriptor that is watched already; edges that came before are not repeated."""
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """For descriptors that live on; closing one ends its registration by itself."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def discard(self, sock: socket.socket) -> None:
        """No more events; closed at the end of this turn."""
        self._handlers.pop(sock.fileno(), None)
        self._discarded.append(sock)

    def soon(self, callback: Callback) -> None:
        """In this turn if it is not past that, else in the next one, which then does not sleep."""
        self._ready.append(callback)

    def first(self, callback: Callback) -> None:
        """At the start of the next turn, before its events."""
        self._first.append(callback)

    def flush_later(self, flushable: Flushable) -> None:
        """At the end of this turn. The caller says it once per turn."""
        self._dirty.append(flushable)

    def later(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(self, callback)
        heapq.heappush(self._timers, (self.now + seconds, next(self._sequence), timer))
        return timer

    def timer_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > PURGE_TIMERS and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2]._callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    @property
    def timers(self) -> int:
        """Those that were cancelled and not cleaned up yet included."""
        return len(self._timers)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            self.turn()

    def turn(self) -> None:
        events = self._epoll.poll(self._patience(), MAX_EVENTS)
        self.now = time.monotonic()
        if self._first:
            self._call_all(self._first)
        handlers = self._handlers
        for fd, event in events:
            handler = handlers.get(fd)
            if handler is not None:
                try:
                    handler(event)
                except Exception:
                    self._broken(handler)
        if self._ready:
            self._call_all(self._ready)
        if self._timers and self._timers[0][0] <= self.now:
            self._fire_timers()
        if self._dirty:
            self._flush()
        if self._discarded:
            self._close_discarded()

    def _patience(self) -> float:
        """Seconds to sleep at most; -1 is for ever."""
        if self._ready or self._first or self._dirty:
            return 0
        return max(0.0, self._timers[0][0] - self.now) if self._timers else -1  # late by one turn at most

    def _call_all(self, callbacks: list[Callback]) -> None:
        turn = callbacks[:]
        callbacks.clear()
        for callback in turn:
            try:
                callback()
            except Exception:
                self._broken(callback)

    def _fire_timers(self) -> None:
        timers = self._timers
        while timers and timers[0][0] <= self.now:
            timer = heapq.heappop(timers)[2]
            try:
                if not timer.fire():
                    self._cancelled -= 1
            except Exception:
                self._broken(timer.fire)
            timers = self._timers

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for flushable in dirty:
            try:
                flushable.flush()
            except Exception:
                self._broken(flushable.flush)

    def _close_discarded(self) -> None:
        for sock in self._discarded:
            try:
                sock.close()
            except OSError:  # ECONNRESET may be told at close; the descriptor is released all the same
                pass
        self._discarded.clear()

    def _broken(self, handler: Callable[..., object]) -> None:
        """A defect of ours in one connection must not end the others."""
        owner = getattr(handler, "__self__", None)
        log.exception("internal error in %s", getattr(handler, "__qualname__", handler))
        crash = getattr(owner, "crash", None)
        if crash is not None:
            try:
                crash("internal error")
            except Exception:
                log.exception("internal error while closing %r", owner)
