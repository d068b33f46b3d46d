"""What chance chooses from: a decision made many times, with the same numbers each time it is asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import TypeVar

from mesh.model.balance import Chance

DRAWS = 1000  # what has one per cent of the traffic is missed once in 20,000 questions
SEED = 0

Value = TypeVar("Value")


def outcomes(decide: Callable[[Chance], Value], key: Callable[[Value], Hashable]) -> list[tuple[Value, float]]:
    """The different outcomes, each with its share of the draws, the most frequent first."""
    numbers = random.Random(SEED)
    found: dict[Hashable, Value] = {}
    counts: dict[Hashable, int] = {}
    for _ in range(DRAWS):
        value = decide(numbers.random)
        name = key(value)
        found.setdefault(name, value)
        counts[name] = counts.get(name, 0) + 1
    return [(found[name], counts[name] / DRAWS) for name in sorted(counts, key=lambda each: -counts[each])]
