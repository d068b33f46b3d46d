"""What is wrong with a route, as the conditions of Gateway API tell it apart (gateway-api apis/v1/shared_types.go)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class About(Enum):
    REFERENCE = "a backend that cannot be used: its share of the traffic fails"
    VALUE = "something that cannot be done: the rule fails, or what cannot match is left out"
    INCOMPATIBLE = "filters that cannot be used together: the route is not accepted, its rule fails"
    IGNORED = "something that has no effect"


@dataclass(frozen=True, slots=True)
class Flaw:
    """`reason` is what the condition has as its reason; `rule` is the number of the rule."""

    about: About
    reason: str
    message: str
    rule: int


@dataclass(slots=True)
class Flaws:
    """Collects what is found while the rule of this number is read."""

    rule: int = 0
    found: list[Flaw] = field(default_factory=list)

    def reference(self, reason: str, message: str) -> str:
        """Returns the message."""
        return self._add(About.REFERENCE, reason, message)

    def value(self, message: str) -> str:
        return self._add(About.VALUE, "UnsupportedValue", message)

    def incompatible(self, message: str) -> str:
        return self._add(About.INCOMPATIBLE, "IncompatibleFilters", message)

    def ignored(self, message: str) -> str:
        return self._add(About.IGNORED, "UnsupportedValue", message)

    def _add(self, about: About, reason: str, message: str) -> str:
        self.found.append(Flaw(about, reason, message, self.rule))
        return message
