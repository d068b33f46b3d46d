"""The watches of several kinds as one stream of events; SYNCED comes once every kind has been listed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from controller.store.interface import Change, Event, Kind
from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.handover import HandOver
from controller.store.kubernetes.health import Health
from controller.store.kubernetes.reading import Reader
from controller.store.kubernetes.versions import Versions


async def watch(
    server: ApiServer,
    kinds: tuple[Kind, ...],
    queries: Mapping[Kind, dict[str, str]],
    health: Health,
    versions: Versions,
) -> AsyncIterator[Event]:
    """Does not end by itself, and goes on through any absence of the server. `queries` narrow what is watched."""
    if not kinds:
        yield Event(Change.SYNCED)
    to = HandOver()
    readers = [Reader(server, kind, queries.get(kind, {}), to, health, versions) for kind in kinds]
    try:
        for reader in readers:
            reader.start()
        waiting = len(readers)
        while True:
            for event in await to.take():
                if event.change is Change.SYNCED:
                    waiting -= 1
                    if waiting:
                        continue
                yield event
    finally:
        to.close()
        for reader in readers:
            reader.stop()
