"""Makes what waypoints consist of, and the classes of Gateways that they have: by the one controller that leads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator

from controller.compile.compiler import Compiler
from controller.compile.gateways import CLASSES, CONTROLLER
from controller.compile.options import MeshOptions
from controller.compile.waypoint_objects import MANAGED, Object, Runtime, is_owned, objects_of
from controller.store import kinds
from controller.store.gateway_shapes import GROUP, Gateway
from controller.store.interface import Key, NotFound, Store, StoreError

log = logging.getLogger("deploy")

SETTLE = 0.2  # seconds in which changes are gathered
MEND = 30.0  # seconds until all of it is looked at again: somebody may have changed or deleted it


class Deployer:
    """`look` after each change, `run` while this controller leads. Objects that no Gateway of ours owns are left alone.

    `collects`: what belongs to a Gateway that is gone is deleted here; Kubernetes does that by itself."""

    def __init__(self, store: Store, runtime: Runtime | None, options: MeshOptions, collects: bool) -> None:
        """Without a runtime nothing is deployed: then waypoints come from somewhere else."""
        self._store, self._runtime, self._options, self._collects = store, runtime, options, collects
        self._compiler: Compiler | None = None
        self._bell = asyncio.Event()
        self._said: set[str] = set()

    def look(self, compiler: Compiler, examined: tuple[Key, ...]) -> None:
        if compiler is not self._compiler or any(key.kind == "Gateway" for key in examined):
            self._compiler = compiler
            self._bell.set()

    async def run(self) -> None:
        """Does not end. What cannot be done is logged once, and tried again."""
        while True:
            await asyncio.sleep(SETTLE)
            self._bell.clear()
            if self._compiler is not None:
                await self._round(self._compiler)
            try:
                await asyncio.wait_for(self._bell.wait(), MEND)
            except TimeoutError:
                pass

    async def _round(self, compiler: Compiler) -> None:
        if self._collects:
            await self._try("what no Gateway owns any more", self._collect(compiler))
        else:
            for name in CLASSES:
                await self._try(f"GatewayClass {name}", self._class(name))
        if self._runtime is None:
            return
        for gateway, objects in _wanted(compiler, self._runtime, self._options):
            for obj in objects:
                await self._try(str(kinds.key_of(obj)), self._apply(obj, gateway))

    async def _try(self, what: str, work: Awaitable[None]) -> None:
        try:
            await work
        except StoreError as error:
            sentence = f"{what} cannot be made as it should be: {error}"
            if sentence not in self._said:
                log.warning("%s", sentence)
                self._said.add(sentence)

    async def _apply(self, obj: Object, gateway: Gateway) -> None:
        key = kinds.key_of(obj)
        try:
            present = await self._store.get(kinds.named(key.kind), key.name, key.namespace)
        except NotFound:
            log.info("%s is made for Gateway %s/%s", key, gateway.metadata.namespace, gateway.metadata.name)
        else:
            if not is_owned(present, gateway):
                raise StoreError("it is there already and does not belong to the Gateway; it stays as it is")
        await self._store.apply(obj)

    async def _class(self, name: str) -> None:
        """Only if there is none: one of that name may be another controller's."""
        try:
            await self._store.get(kinds.GATEWAY_CLASS, name)
        except NotFound:
            metadata = {"name": name}
            spec = {"controllerName": CONTROLLER, "description": "Waypoints of Ambit"}
            obj = {"apiVersion": f"{GROUP}/v1", "kind": "GatewayClass", "metadata": metadata, "spec": spec}
            try:
                await self._store.apply(obj)
            except NotFound:
                log.debug("the cluster has no Gateway API")

    async def _collect(self, compiler: Compiler) -> None:
        living = {each.metadata.uid for each in compiler.index.waypoints.gateways.values()}
        for kind in (kinds.DEPLOYMENT, kinds.SERVICE, kinds.SERVICE_ACCOUNT):
            for obj in await self._store.list(kind):
                owners = obj["metadata"].get("ownerReferences") or ()
                uids = {each.get("uid") for each in owners if each.get("kind") == "Gateway"}
                if MANAGED in (obj["metadata"].get("labels") or {}) and uids and not uids & living:
                    await self._store.delete(kinds.key_of(obj))


def _wanted(compiler: Compiler, runtime: Runtime, options: MeshOptions) -> Iterator[tuple[Gateway, tuple[Object, ...]]]:
    index = compiler.index.waypoints
    for key, gateway in sorted(index.gateways.items()):
        waypoint = index.waypoint(key)
        if waypoint is not None and waypoint.listener is not None and not gateway.metadata.deletion_timestamp:
            yield gateway, objects_of(gateway, waypoint, runtime, options)
