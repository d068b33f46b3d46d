"""What the status of an object should say: conditions, and where Gateway API keeps them. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field

Reference = tuple[tuple[str, str | int], ...]
"""A parentRef as pairs, so that it can be compared and hashed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One condition."""

    type: str
    status: bool
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class WantedParent:
    """One entry of a route's status.parents: ours for this parentRef."""

    reference: Reference
    conditions: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class WantedListener:
    name: str
    conditions: tuple[Wanted, ...]


@dataclass(frozen=True, slots=True)
class WantedStatus:
    """`conditions` are those of the object; `dropped` are types that are taken away where they are.

    `parents`, `listeners` and `addresses` are None where there is none of that kind, or it is to stay as it is.
    """

    conditions: tuple[Wanted, ...] = ()
    dropped: frozenset[str] = frozenset()
    parents: tuple[WantedParent, ...] | None = None
    listeners: tuple[WantedListener, ...] | None = None
    addresses: tuple[tuple[str, str], ...] | None = field(default=None)
    """(type, value)"""


NOTHING = WantedStatus()
