"""Floods: frames that are legal one by one and cost more than they bring.

There is no clock here. Whoever sends the keepalive pings has one, so a period lasts from one of our pings to the next.
"""

from __future__ import annotations

from enum import Enum

from .frames import ConnectionFailed, ErrorCode
from .limits import FloodLimits


class Excess(Enum):
    """What is counted; the value names the limit."""

    RESETS = "resets"
    SETTINGS = "settings"
    PINGS = "pings"
    EMPTY_DATA = "empty_data"
    PRIORITIES = "priorities"
    WINDOW_UPDATES = "window_updates"
    IGNORED = "ignored"


class Guard:
    """Counts excesses of one period."""

    __slots__ = ("_limits", "_spent")

    def __init__(self, limits: FloodLimits) -> None:
        self._limits: dict[Excess, int] = {excess: getattr(limits, excess.value) for excess in Excess}
        self._spent: dict[Excess, int] = {}

    def spend(self, excess: Excess, earned: int = 0) -> None:
        """Counts one; `earned` more than the limit are justified. Raises ConnectionFailed when it is one too many."""
        spent = self._spent[excess] = self._spent.get(excess, 0) + 1
        limit = self._limits[excess] + earned
        if spent > limit:
            words = excess.value.replace("_", " ")
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, f"more than {limit} {words} between two keepalives")

    def new_period(self) -> None:
        self._spent.clear()
