"""A copy of some kinds of objects that follows the store, for who looks often and decides on what is true now."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

from controller.store.interface import Change, Event, Key, Kind, Object, Store, StoreError
from mesh.runtime.backoff import Backoff

log = logging.getLogger("mirror")


class Mirror:
    """`run` follows the store; `changed` is set by every change, once `synced` is.

    A watch that breaks is begun again: until it has caught up, the copy is the last known one.
    """

    def __init__(self, store: Store, kinds: tuple[Kind, ...]) -> None:
        self._store, self._kinds = store, kinds
        self._objects: dict[Key, Object] = {}
        self._arriving: dict[Key, Object] | None = None
        self._listeners: list[asyncio.Event] = []
        self.synced = asyncio.Event()

    def of(self, kind: str) -> Iterable[Object]:
        return [found for key, found in self._objects.items() if key.kind == kind]

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._objects.get(Key(kind, namespace, name))

    def listen(self) -> asyncio.Event:
        """An event that every change sets; whoever asked for it clears it."""
        event = asyncio.Event()
        event.set()
        self._listeners.append(event)
        return event

    async def run(self) -> None:
        backoff = Backoff(0.1, 10.0)
        while True:
            self._arriving = {}
            try:
                async for event in self._store.watch(self._kinds):
                    self._take(event)
                    backoff.succeeded()
            except (StoreError, OSError) as error:
                log.warning("the watch of the objects ended and is begun again: %s", error)
            await asyncio.sleep(backoff.after_failure(random.random()))

    def _take(self, event: Event) -> None:
        arriving = self._arriving
        target = self._objects if arriving is None else arriving
        if event.change is Change.SYNCED:
            if arriving is not None:
                self._objects, self._arriving = arriving, None
            self.synced.set()
        elif event.key is not None and event.change is Change.DELETED:
            target.pop(event.key, None)
        elif event.key is not None and event.object is not None:
            target[event.key] = event.object
        if self.synced.is_set() and self._arriving is None:
            for listener in self._listeners:
                listener.set()
