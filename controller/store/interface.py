"""The one door to Kubernetes objects: list, watch, apply, status. Nothing above can tell which store is behind it.

Objects are plain dicts as in a manifest (apiVersion, kind, metadata, spec, status); receivers never change them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource type: its API group ("" is core), version, kind and plural name.

    `versions` are others that clusters serve instead, with the same fields. A cluster need not have an `optional` kind.
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    versions: tuple[str, ...] = ()
    optional: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def in_version(self, version: str) -> Kind:
        return replace(self, version=version)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Names one object: kind ("Pod"), namespace ("" for cluster-scoped kinds) and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class Change(Enum):
    APPLIED = "applied"  # added or modified
    DELETED = "deleted"
    SYNCED = "synced"  # everything that existed when the watch began has been delivered


@dataclass(frozen=True, slots=True)
class Event:
    change: Change
    key: Key | None = None  # None with SYNCED
    object: Object | None = None  # with DELETED the last known one, or what is left of it: its identity


class StoreError(Exception):
    """An operation failed; the text names the file or server, the object and the field."""


class Conflict(StoreError):
    """The object has changed since it was read."""


class NotFound(StoreError):
    """There is no such object."""


class Store(Protocol):
    """Safe for one event loop. Every write is one atomic change that all watchers see."""

    async def list(self, kind: Kind, namespace: str = "") -> tuple[Object, ...]:
        """All objects of a kind, in all namespaces when none is named."""

    def watch(self, kinds: tuple[Kind, ...]) -> AsyncIterator[Event]:
        """What exists, then SYNCED, then changes, without end and without a gap (resumed or relisted)."""

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        """Raises NotFound."""

    async def apply(self, obj: Object) -> Object:
        """Create, or change as `kubectl apply` does: what the manifest says is set, what only an earlier manifest said
        is removed, what others wrote stays; so does the status. Raises StoreError when malformed, Conflict when it has
        a resourceVersion that is not the present one."""

    async def change(self, key: Key, edit: Callable[[dict[str, Any]], None]) -> Object:
        """Read, edit a private copy, write, again on Conflict. The status stays as it was. Raises NotFound."""

    async def change_status(self, key: Key, edit: Callable[[dict[str, Any]], None]) -> Object:
        """As `change`, but only what `edit` does to `status` is kept."""

    async def delete(self, key: Key) -> None:
        """A pod that has a node is only marked (deletionTimestamp): who ends it there deletes it again.

        Raises NotFound."""
