"""How long to wait before trying again: doubling, with a cap and jitter, so that many clients do not come at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Backoff:
    """Seconds. `jitter` is the fraction by which a wait may be shorter or longer."""

    start: float
    cap: float
    factor: float = 2.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        self._next = self.start

    def after_failure(self, chance: float) -> float:
        """The wait after one more failure; `chance` in [0, 1) is the caller's dice."""
        wait = min(self._next, self.cap)
        self._next = min(self._next * self.factor, self.cap)
        return wait * (1 + self.jitter * (2 * chance - 1))

    def succeeded(self) -> None:
        """The next failure is a first one again."""
        self._next = self.start
