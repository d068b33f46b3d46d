"""What a watch has told of one kind, so that whatever a server says next becomes the right events. Pure.

Of each object only its identity is kept: ten thousand pods a second time would be a hundred megabytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from controller.store.interface import Change, Event, Key, Kind, Object

_TO_EVENTS = {"ADDED", "MODIFIED"}


@dataclass(frozen=True, slots=True)
class _Told:
    uid: str
    version: str


class Known:
    """Keys are told apart by uid: an object that took the place of another of its name is preceded by its deletion."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._told: dict[Key, _Told] = {}

    def __bool__(self) -> bool:
        return bool(self._told)

    def page(self, items: Iterable[Any], seen: set[Key]) -> Iterator[Event]:
        """Part of a list; `seen` collects what it holds. Raises KeyError, TypeError for what is no object."""
        for item in items:
            obj = clean(self._kind, item)
            key = self._key(obj)
            seen.add(key)
            yield from self._applied(key, obj)

    def listed(self, seen: set[Key]) -> Iterator[Event]:
        """After the last page: what has vanished while nobody watched."""
        for key in [key for key in self._told if key not in seen]:
            yield self._deleted(key)

    def changed(self, change: str, item: Any) -> Iterator[Event]:
        """An event of a watch: ADDED, MODIFIED or DELETED. Raises KeyError, TypeError, ValueError for anything else."""
        obj = clean(self._kind, item)
        key = self._key(obj)
        if change in _TO_EVENTS:
            yield from self._applied(key, obj)
        elif change == "DELETED":
            if self._told.pop(key, None) is not None:
                yield Event(Change.DELETED, key, obj)
        else:
            raise ValueError(f"an event of type {change}")

    def _applied(self, key: Key, obj: Object) -> Iterator[Event]:
        now = _Told(obj["metadata"]["uid"], obj["metadata"]["resourceVersion"])
        before = self._told.get(key)
        if before == now:
            return
        if before is not None and before.uid != now.uid:
            yield self._deleted(key)
        self._told[key] = now
        yield Event(Change.APPLIED, key, obj)

    def _deleted(self, key: Key) -> Event:
        told = self._told.pop(key)
        metadata = {"name": key.name, "uid": told.uid, "resourceVersion": told.version}
        if key.namespace:
            metadata["namespace"] = key.namespace
        obj = {"apiVersion": self._kind.api_version, "kind": self._kind.kind, "metadata": metadata}
        return Event(Change.DELETED, key, obj)

    def _key(self, obj: Object) -> Key:
        metadata = obj["metadata"]
        return Key(self._kind.kind, metadata["namespace"] if self._kind.namespaced else "", metadata["name"])


def clean(kind: Kind, item: Any) -> dict[str, Any]:
    """An object as a manifest has it. Lists leave out apiVersion and kind, managedFields are half of an object's size,
    and where Go has nothing to say it says null."""
    item["metadata"].pop("managedFields", None)
    _drop_nulls(item)
    return {"apiVersion": kind.api_version, "kind": kind.kind, **item}


def _drop_nulls(value: Any) -> None:
    """In place, and only into what can hold more: this is most of the cost of an object."""
    if type(value) is dict:
        for name in [name for name, each in value.items() if each is None]:
            del value[name]
        value = value.values()
    for each in value:
        if type(each) is dict or type(each) is list:
            _drop_nulls(each)
