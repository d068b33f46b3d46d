"""Whether a process is ready to serve, and what it still waits for."""

from __future__ import annotations

from collections.abc import Mapping


class Readiness:
    """A set of conditions that are not met, each with a sentence for people. Ready when there is none."""

    def __init__(self, **waiting: str) -> None:
        self._waiting = dict(waiting)

    def wait_for(self, condition: str, reason: str) -> None:
        self._waiting[condition] = reason

    def met(self, condition: str) -> None:
        self._waiting.pop(condition, None)

    @property
    def waiting(self) -> Mapping[str, str]:
        return self._waiting

    @property
    def ready(self) -> bool:
        return not self._waiting
