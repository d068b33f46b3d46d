"""Writes problems into the status of the objects that have them, and takes them away again."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from controller.compile.compiler import Changes, Compiler, Problems
from controller.conditions import KINDS_WITH_CONDITIONS, is_current, set_condition
from controller.store.interface import Key, NotFound, Store, StoreError

log = logging.getLogger("status")

# Seconds until a problem is written down: many are over when the rest of a manifest has arrived.
SETTLE = 0.5


class StatusWriter:
    """Writes in the background. What waits is the latest word per object, so it is bounded by the objects."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[Key, Problems] = {}
        self._bell = asyncio.Event()

    def look(self, compiler: Compiler, changes: Changes) -> None:
        """Compares what was examined with what its status says; others may have overwritten it."""
        for key, problems in changes.problems.items():
            for problem in problems:
                log.warning("%s", problem)
            if not problems:
                log.info("%s has no problem any more", key)
        for key in changes.examined:
            obj = compiler.index.pods.get(key) or compiler.index.services.get(key)
            problems = compiler.problems_of(key)
            if obj is None or key.kind not in KINDS_WITH_CONDITIONS or is_current(obj.status.conditions, problems):
                self._waiting.pop(key, None)
            else:
                self._waiting[key] = problems
                self._bell.set()

    async def run(self) -> None:
        """Does not end. What cannot be written is logged; the object's next change is the next occasion."""
        while True:
            await self._bell.wait()
            await asyncio.sleep(SETTLE)
            self._bell.clear()
            while self._waiting:
                key = next(iter(self._waiting))
                await self._write(key, self._waiting.pop(key))

    async def _write(self, key: Key, problems: Problems) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            await self._store.change_status(key, lambda obj: set_condition(obj, problems, now))
        except NotFound:
            log.debug("%s has gone meanwhile", key)
        except StoreError as error:
            log.warning("the status of %s cannot be written: %s", key, error)
