"""What a watcher hears."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from controller.store.interface import Change, Event, Key, Kind, Store
from controller.store.kinds import NAMESPACE, POD, SERVICE

PATIENCE = 30.0  # seconds until a test that waits for something fails


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, PATIENCE))


class Watched:
    """What a watcher has heard of a namespace; `until` waits for something to be true of it."""

    def __init__(self, events: AsyncIterator[Event], namespace: str) -> None:
        self.events: list[Event] = []
        self._source = events
        self._namespace = namespace

    async def until(self, true: Callable[[list[Event]], object]) -> None:
        while not true(self.events):
            event = await anext(self._source)
            key = event.key
            if key is None or self._namespace in (key.namespace, key.name):
                self.events.append(event)

    async def synced(self) -> None:
        await self.until(lambda events: events and events[-1].change is Change.SYNCED)
        self.events.clear()

    async def hears(self, change: Change, key: Key) -> Event:
        await self.until(lambda events: any((event.change, event.key) == (change, key) for event in events))
        found = next(event for event in self.events if (event.change, event.key) == (change, key))
        self.events.clear()
        return found


@contextlib.asynccontextmanager
async def watching(
    store: Store, namespace: str = "shop", kinds: tuple[Kind, ...] = (NAMESPACE, POD, SERVICE)
) -> AsyncIterator[Watched]:
    source = store.watch(kinds)
    watched = Watched(source, namespace)
    await watched.synced()
    try:
        yield watched
    finally:
        await source.aclose()  # type: ignore[attr-defined]
