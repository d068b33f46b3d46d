"""Runs the controllers: after every change, on a fresh picture of all objects, until nothing is left to do."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from controller.store.interface import NotFound, Store, StoreError
from controller.store.kinds import KINDS
from deploy.local.controllers import deployments, endpoint_slices, namespaces, scheduler, service_addresses
from deploy.local.controllers.actions import Action, Apply, Delete, Merge, Picture, SetStatus, picture
from mesh.runtime.backoff import Backoff

log = logging.getLogger("controllers")

CALM = 0.01  # seconds in which changes are gathered: a manifest of ten objects is one round, not ten


class ControllerLoop:
    """`run` does not end. Errors of the store are logged and tried again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._namespaces: frozenset[str] = frozenset()
        self._changed = asyncio.Event()

    async def run(self) -> None:
        self._changed.set()
        watching = asyncio.create_task(self._watch())
        backoff = Backoff(0.1, 10.0)
        try:
            while True:
                await self._changed.wait()
                await asyncio.sleep(CALM)
                self._changed.clear()
                if await self._round():
                    backoff.succeeded()
                else:
                    self._changed.set()
                    await asyncio.sleep(backoff.after_failure(random.random()))
        finally:
            watching.cancel()

    async def begin(self) -> None:
        """What a mesh begins with. Raises StoreError."""
        for action in namespaces.begin(await self._picture()):
            await self._carry_out(action)

    async def _watch(self) -> None:
        backoff = Backoff(0.1, 10.0)
        while True:
            try:
                async for _ in self._store.watch(KINDS):
                    self._changed.set()
                    backoff.succeeded()
            except (StoreError, OSError) as error:
                log.warning("the watch of the objects ended and is begun again: %s", error)
            await asyncio.sleep(backoff.after_failure(random.random()))

    async def _picture(self) -> Picture:
        """Read afresh, not from what a watch has delivered: only so a pod that was just created is never made twice."""
        return picture([each for kind in KINDS for each in await self._store.list(kind)])

    async def _round(self) -> bool:
        """One look at everything; whether all that followed from it could be done."""
        good = True
        try:
            seen = await self._picture()
        except (StoreError, OSError) as error:
            log.warning("the objects cannot be read: %s", error)
            return False
        for action in self._decide(seen):
            try:
                await self._carry_out(action)
            except (StoreError, OSError) as error:
                log.warning("%s: %s", type(action).__name__, error)
                good = False
        return good

    def _decide(self, seen: Picture) -> Iterator[Action]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        living = frozenset(each["metadata"]["name"] for each in seen.of("Namespace"))
        gone = self._namespaces - living
        # Those that still hold something stay on the list: an object may have been written after they went.
        self._namespaces = living | frozenset(name for name in gone if _holds_something(seen, name))
        yield from namespaces.collect(seen, gone)
        yield from namespaces.reconcile(seen)
        yield from service_addresses.reconcile(seen, now)
        yield from deployments.reconcile(seen, f"{random.random()}", now)
        yield from scheduler.reconcile(seen, now)
        yield from endpoint_slices.reconcile(seen)

    async def _carry_out(self, action: Action) -> None:
        try:
            match action:
                case Apply(obj):
                    await self._store.apply(obj)
                case Merge(key, uid, fields):
                    await self._store.change(key, lambda obj: _merge_if(obj, uid, fields))
                case SetStatus(key, uid, status):
                    await self._store.change_status(key, lambda obj: _merge_if(obj, uid, {"status": status}))
                case Delete(key):
                    await self._store.delete(key)
        except NotFound:
            log.debug("%s came too late: the object is gone", action)


def _holds_something(seen: Picture, namespace: str) -> bool:
    return any(namespace == found for kind in KINDS if kind.namespaced for found, _ in seen.names(kind.kind))


def _merge_if(obj: dict[str, Any], uid: str, fields: Mapping[str, Any]) -> None:
    if obj["metadata"].get("uid") == uid:
        _merge(obj, fields)


def _merge(target: dict[str, Any], fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, Mapping) and isinstance(target.get(name), dict):
            _merge(target[name], value)
        else:
            target[name] = dict(value) if isinstance(value, Mapping) else value
