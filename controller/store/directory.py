"""The store in a directory: plain manifests as files, used by several processes at once, needing no server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controller.store import kinds, merge, watching
from controller.store.files import ObjectFiles
from controller.store.interface import Event, Key, Kind, NotFound, Object, StoreError
from controller.store.manifest import check_object

Edit = Callable[[dict[str, Any]], None]


class DirectoryStore:
    """A `Store`; layout and guarantees are those of `files`. Makes the directory when there is none."""

    def __init__(self, root: Path | str) -> None:
        self._files = ObjectFiles(Path(root))

    @property
    def root(self) -> Path:
        return self._files.root

    async def list(self, kind: Kind, namespace: str = "") -> tuple[Object, ...]:
        return await asyncio.to_thread(self._list, kind, namespace)

    def watch(self, kinds: tuple[Kind, ...]) -> AsyncIterator[Event]:
        return watching.watch(self._files, kinds)

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        key = Key(kind.kind, namespace if kind.namespaced else "", name)
        return await asyncio.to_thread(self._get, key)

    async def apply(self, obj: Object) -> Object:
        check_object(obj)
        return await asyncio.to_thread(self._apply, obj)

    async def change(self, key: Key, edit: Edit) -> Object:
        return await asyncio.to_thread(self._change, key, edit, False)

    async def change_status(self, key: Key, edit: Edit) -> Object:
        return await asyncio.to_thread(self._change, key, edit, True)

    async def delete(self, key: Key) -> None:
        await asyncio.to_thread(self._delete, key)

    async def problems(self) -> tuple[str, ...]:
        """Files that are there and cannot be used: a sentence each."""
        return await asyncio.to_thread(self._problems)

    # --- the same, blocking

    def _list(self, kind: Kind, namespace: str) -> tuple[Object, ...]:
        files = self._files
        found = (
            files.load(directory / name)
            for directory in files.directories(kind, namespace)
            for name in files.names(directory)
        )
        return tuple(entry.good for entry in found if entry is not None and entry.good is not None)

    def _get(self, key: Key) -> Object:
        entry = self._files.load(self._files.path(key))
        if entry is None:
            self._files.require_root()
            raise NotFound(f"there is no {key}")
        if entry.good is None:
            raise StoreError(entry.problem)
        return entry.good

    def _get_to_write(self, key: Key) -> Object:
        """Not the last good one: writing that would undo what somebody is editing."""
        obj, entry = self._get(key), self._files.load(self._files.path(key))
        if entry is not None and entry.problem:
            raise StoreError(entry.problem)
        return obj

    def _apply(self, obj: Object) -> Object:
        key = kinds.key_of(obj)
        manifest = merge.plain(obj)
        if key.namespace:
            manifest["metadata"]["namespace"] = key.namespace
        with self._files.locked() as versions:
            try:
                before: Object | None = self._get_to_write(key)
            except NotFound:
                before = None
            return self._write(key, before, merge.applied(before, manifest), versions.next)

    def _change(self, key: Key, edit: Edit, status: bool) -> Object:
        with self._files.locked() as versions:
            before = self._get_to_write(key)
            after = merge.plain(before)
            edit(after)
            return self._write(key, before, merge.plain(merge.edited(before, after, status)), versions.next)

    def _write(self, key: Key, before: Object | None, after: dict[str, Any], version: Callable[[], int]) -> Object:
        """Nothing is written when nothing has changed. Raises StoreError when the result is malformed."""
        if before is not None and after == before:
            return before
        check_object(after)
        stamped = merge.stamped(before, after, _now(), version(), str(uuid.uuid4()))
        self._files.write(self._files.path(key), stamped)
        return stamped

    def _delete(self, key: Key) -> None:
        with self._files.locked() as versions:
            path = self._files.path(key)
            entry = self._files.load(path)
            if entry is not None and entry.good is not None and merge.runs_on(entry.good):
                self._write(key, entry.good, merge.ending(entry.good, _now()), versions.next)
                return
            try:
                self._files.remove(path)
            except FileNotFoundError:
                raise NotFound(f"there is no {key}") from None

    def _problems(self) -> tuple[str, ...]:
        files = self._files
        entries = (
            files.load(directory / name)
            for kind in kinds.KINDS
            for directory in files.directories(kind)
            for name in files.names(directory)
        )
        return (*files.strangers(), *(entry.problem for entry in entries if entry is not None and entry.problem))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
