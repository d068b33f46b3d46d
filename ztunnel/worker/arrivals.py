"""Waiting, for a bounded time, for something that the agent is about to tell: a new pod's workload, a certificate.

A pod may dial before its own workload has come down from the controller; refusing that would break start-up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from ztunnel.worker.loop import Loop, Timer

MOST = 10_000  # waiting calls; beyond it they are told at once that nothing came


class Arrivals:
    """Callbacks by what they wait for; each is called once, with whether it has come."""

    def __init__(self, loop: Loop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._waiting: dict[Hashable, list[_Wait]] = {}
        self._count = 0
        self.refused = 0  # calls that did not wait, because so many did

    def __len__(self) -> int:
        return self._count

    def wait(self, key: Hashable, callback: Callable[[bool], None]) -> None:
        if self._count >= MOST:
            self.refused += 1
            callback(False)
            return
        wait = _Wait(self, key, callback)
        wait.timer = self._loop.later(self._seconds, wait.timed_out)
        self._waiting.setdefault(key, []).append(wait)
        self._count += 1

    def expected(self) -> list[Hashable]:
        """What somebody waits for."""
        return list(self._waiting)

    def came(self, key: Hashable) -> None:
        for wait in self._waiting.pop(key, ()):
            self._count -= 1
            wait.tell(True)

    def gave_up(self, wait: _Wait) -> None:
        left = [each for each in self._waiting.get(wait.key, ()) if each is not wait]
        if left:
            self._waiting[wait.key] = left
        else:
            self._waiting.pop(wait.key, None)
        self._count -= 1
        wait.tell(False)


class _Wait:
    __slots__ = ("_arrivals", "_callback", "key", "timer")

    def __init__(self, arrivals: Arrivals, key: Hashable, callback: Callable[[bool], None]) -> None:
        self._arrivals = arrivals
        self._callback = callback
        self.key = key
        self.timer: Timer | None = None

    def tell(self, came: bool) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self._callback(came)

    def timed_out(self) -> None:
        self._arrivals.gave_up(self)
