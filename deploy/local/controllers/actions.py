"""What a controller wants done, as values; and what it sees, as one consistent picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.store.interface import Key, Object
from deploy.local.objects import namespace


@dataclass(frozen=True, slots=True)
class Apply:
    """Create an object, or replace its labels, annotations, spec and the like."""

    object: Object


@dataclass(frozen=True, slots=True)
class Merge:
    """Set the fields that `fields` has, at any depth, and leave the others. Nothing happens if the object is gone or
    is another one by now (uid)."""

    key: Key
    uid: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Set fields of the status and leave the others; as `Merge` does, but one level deep."""

    key: Key
    uid: str
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    key: Key


Action = Apply | Merge | SetStatus | Delete


@dataclass(frozen=True, slots=True)
class Picture:
    """All objects by kind name, as they are now."""

    objects: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)

    def of(self, kind: str) -> tuple[Object, ...]:
        return self.objects.get(kind, ())

    def names(self, kind: str) -> frozenset[tuple[str, str]]:
        """(namespace, name) of all objects of a kind."""
        return frozenset((namespace(each), each["metadata"]["name"]) for each in self.of(kind))


def picture(objects: Iterable[Object]) -> Picture:
    by_kind: dict[str, list[Object]] = {}
    for each in objects:
        by_kind.setdefault(each["kind"], []).append(each)
    return Picture({kind: tuple(found) for kind, found in by_kind.items()})
