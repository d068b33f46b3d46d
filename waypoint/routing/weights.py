"""Shares of traffic by one random number per request.

What is left of the number after a choice is again evenly spread in [0, 1), and decides the next: a request needs no
more than one. A float has 53 bits; a choice by per cent takes seven.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

BELOW_ONE = 1 - 2**-53


class Weights:
    """Draws an index in proportion to its weight; one of weight 0 never, and nothing when all weights are 0."""

    __slots__ = ("_bounds", "_single", "_total")

    def __init__(self, weights: Sequence[int]) -> None:
        self._bounds = tuple(accumulate(max(0, weight) for weight in weights))
        self._total = self._bounds[-1] if self._bounds else 0
        positive = [index for index, weight in enumerate(weights) if weight > 0]
        self._single = positive[0] if len(positive) == 1 else None

    def draw(self, chance: float) -> tuple[int, float] | None:
        """The index, and what is left of `chance`."""
        if self._single is not None:
            return self._single, chance
        if self._total == 0:
            return None
        at = min(chance * self._total, self._total * BELOW_ONE)
        index = bisect_right(self._bounds, at)
        lower = self._bounds[index - 1] if index else 0
        return index, min((at - lower) / (self._bounds[index] - lower), BELOW_ONE)


def draw_share(chance: float, share: float) -> tuple[bool, float]:
    """Whether a choice of probability `share` is taken, and what is left of `chance`."""
    if chance < share:
        return True, min(chance / share, BELOW_ONE)
    if share >= 1:
        return True, chance
    return False, min((chance - share) / (1 - share), BELOW_ONE)
