"""What is wrong with an object that is well formed in itself: it clashes with others, or refers to what is missing."""

from __future__ import annotations

from dataclasses import dataclass

from controller.store.interface import Key


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """`sentence` says what is wrong with `field` of the object and what follows from it; `reason` in one word, as
    conditions have it."""

    key: Key
    field: str
    sentence: str
    reason: str = "Invalid"

    def __str__(self) -> str:
        return f"{self.key}: {self.field}: {self.sentence}"
