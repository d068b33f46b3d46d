"""Writes into the status of objects what is known of them: problems, and conditions of waypoints and routes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from controller import wanted_status
from controller.compile.compiler import Changes, Compiler
from controller.conditions import is_current, set_condition
from controller.store.interface import Key, NotFound, Store, StoreError

Edit = Callable[[dict[str, Any], str], None]
"""Of an object's status, and the time."""

log = logging.getLogger("status")

# Seconds until a problem is written down: many are over when the rest of a manifest has arrived.
SETTLE = 0.5


class StatusWriter:
    """Writes in the background. What waits is the latest word per object, so it is bounded by the objects."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[Key, tuple[Edit, ...]] = {}
        self._bell = asyncio.Event()

    def look(self, compiler: Compiler, changes: Changes) -> None:
        """Compares what was examined with what its status says; others may have overwritten it."""
        for key, problems in changes.problems.items():
            for problem in problems:
                log.warning("%s", problem)
            if not problems:
                log.info("%s has no problem any more", key)
        for key in changes.examined:
            edits = tuple(_edits(compiler, key))
            if edits:
                self._waiting[key] = edits
                self._bell.set()
            else:
                self._waiting.pop(key, None)

    async def run(self) -> None:
        """Does not end. What cannot be written is logged; the object's next change is the next occasion."""
        while True:
            await self._bell.wait()
            await asyncio.sleep(SETTLE)
            self._bell.clear()
            while self._waiting:
                key = next(iter(self._waiting))
                await self._write(key, self._waiting.pop(key))

    async def _write(self, key: Key, edits: tuple[Edit, ...]) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

        def edit(obj: dict[str, Any]) -> None:
            for each in edits:
                each(obj, now)

        try:
            await self._store.change_status(key, edit)
        except NotFound:
            log.debug("%s has gone meanwhile", key)
        except StoreError as error:
            log.warning("the status of %s cannot be written: %s", key, error)


def _edits(compiler: Compiler, key: Key) -> Iterator[Edit]:
    """What is to be changed for the status to be true."""
    conditions, problems = compiler.index.conditions(key), compiler.problems_of(key)
    if conditions is not None and not is_current(key.kind, conditions, problems):
        yield lambda obj, now: set_condition(obj, key.kind, problems, now)
    status, wanted = compiler.index.status(key), compiler.wanted_status(key)
    if status is not None and not wanted_status.is_current(*status, wanted):
        yield lambda obj, now: wanted_status.bring(obj, wanted, now)
