"""What is wrong with a resource that came over the wire."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

Chosen = TypeVar("Chosen", bound=IntEnum)


class InvalidResource(Exception):
    """A resource that cannot be taken in: which one, in which field, why."""

    def __init__(self, name: str, field: str, reason: str) -> None:
        super().__init__(f"{name}: {field}: {reason}")
        self.name = name
        self.field = field
        self.reason = reason


class InvalidField(ValueError):
    """As InvalidResource, from a place that does not know which resource it is reading."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def port(number: int, field: str) -> int:
    """A port number, 0 included: it has a meaning in some fields. Raises InvalidField."""
    if number > 65535:
        raise InvalidField(field, f"{number} is not a port")
    return number


def choice(kind: type[Chosen], number: int, field: str) -> Chosen:
    """A known value of an enumeration. Raises InvalidField."""
    try:
        return kind(number)
    except ValueError:
        raise InvalidField(field, f"unknown {kind.__name__} {number}") from None
