"""The changes of a directory store as events: what exists, then SYNCED, then every change that the kernel notices."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

from controller.store import kinds
from controller.store.files import ObjectFiles, is_object_file
from controller.store.inotify import CONTENTS, ENTRIES, IN_CREATE, IN_MOVED_FROM, Inotify, Notice
from controller.store.interface import Change, Event, Kind, Object

# Editors save by moving the file away and writing a new one: a file that was moved away gets this long to come back
# before its object counts as deleted. One that is unlinked is deleted at once.
MOVED_AWAY_GRACE = 0.5


async def watch(files: ObjectFiles, wanted: tuple[Kind, ...]) -> AsyncIterator[Event]:
    """Raises StoreError when the store directory vanishes."""
    with Inotify() as inotify:
        view = _View(files, wanted, inotify)
        for event in await asyncio.to_thread(view.look_at_everything):
            yield event
        yield Event(Change.SYNCED)
        while True:
            if view.note(await inotify.read(view.patience())):
                for event in await asyncio.to_thread(view.look):
                    yield event


class _View:
    """What one watcher has been told, and what it has to look at again."""

    def __init__(self, files: ObjectFiles, wanted: tuple[Kind, ...], inotify: Inotify) -> None:
        self._files = files
        self._kinds = wanted
        self._inotify = inotify
        self._told: dict[Path, Object] = {}
        self._touched: dict[Path, None] = {}  # in the order in which it happened
        self._everything = False
        self._moved_away: dict[Path, float] = {}  # by when it has to be back

    def patience(self) -> float | None:
        """Seconds until something has to be looked at without a notice."""
        if not self._moved_away:
            return None
        return max(0.0, min(self._moved_away.values()) - time.monotonic())

    def note(self, notices: Iterable[Notice]) -> bool:
        """Whether there is something to look at: lock and temporary files are not."""
        for notice in notices:
            self._everything = self._everything or notice.concerns_directories
            if notice.directory is not None and is_object_file(notice.name):
                self._note_file(notice, notice.directory / notice.name)
        now = time.monotonic()
        for path in [path for path, deadline in self._moved_away.items() if deadline <= now]:
            del self._moved_away[path]
            self._touched[path] = None
        return self._everything or bool(self._touched)

    def _note_file(self, notice: Notice, path: Path) -> None:
        if notice.mask & IN_MOVED_FROM:
            self._moved_away[path] = time.monotonic() + MOVED_AWAY_GRACE
        elif not notice.mask & IN_CREATE or os.path.islink(path):
            self._touched[path] = None

    def look(self) -> list[Event]:
        touched, self._touched = self._touched, {}
        if self._everything:
            return self.look_at_everything()
        return [event for path in touched for event in self._look_at(path)]

    def look_at_everything(self) -> list[Event]:
        """Directories are watched before they are read, so nothing falls in between."""
        self._everything = False
        self._files.require_root()
        self._inotify.add(self._files.root, ENTRIES)
        found = [path for kind in self._kinds for path in self._paths(kind)]
        gone = self._told.keys() - set(found) - self._moved_away.keys()
        return [event for path in (*found, *gone) for event in self._look_at(path)]

    def _paths(self, kind: Kind) -> Iterator[Path]:
        if not self._inotify.add(self._files.kind_directory(kind), ENTRIES):
            return
        for directory in self._files.directories(kind):
            if self._inotify.add(directory, CONTENTS):
                yield from (directory / name for name in self._files.names(directory))

    def _look_at(self, path: Path) -> Iterator[Event]:
        self._moved_away.pop(path, None)
        entry, before = self._files.load(path), self._told.get(path)
        now = entry.good if entry is not None else None
        if entry is not None and (now is None or now == before):
            return  # nothing usable has ever been there, or the same as before
        if before is not None and (now is None or now["metadata"]["uid"] != before["metadata"]["uid"]):
            del self._told[path]
            yield Event(Change.DELETED, kinds.key_of(before), before)
        if now is not None:
            self._told[path] = now
            yield Event(Change.APPLIED, kinds.key_of(now), now)
