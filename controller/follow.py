"""From the store to the ztunnels: takes events, gathers those of a moment, compiles, publishes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from controller.authority.authentication import PodIdentity
from controller.compile.compiler import Changes, Compiler
from controller.compile.index import WATCHED
from controller.compile.options import MeshOptions
from controller.compile.published import NO_ROUTING, RoutingUpdate
from controller.store.interface import Change, Store, StoreError
from mesh.model.update import MeshUpdate
from mesh.runtime.backoff import Backoff

log = logging.getLogger("compile")

# Seconds in which changes are gathered: a manifest of ten objects becomes one push. Far below what people notice.
GATHER = 0.01

_UNCHANGED = MeshUpdate()


class Follower:
    """Keeps a compiler in step with the store. `publish` gets every difference, first (and after a new watch) all."""

    def __init__(
        self,
        store: Store,
        options: MeshOptions,
        publish: Callable[[MeshUpdate, RoutingUpdate], None],
        look_at_problems: Callable[[Compiler, Changes], None],
    ) -> None:
        self._store = store
        self._options = options
        self._publish = publish
        self._look_at_problems = look_at_problems
        self._gathering: asyncio.TimerHandle | None = None
        self.compiler = Compiler(options)
        self.synced = asyncio.Event()

    def runs_on_node(self, node: str, namespace: str, service_account: str) -> bool:
        """As of the last event, published or not."""
        return self.compiler.index.runs_on_node(node, namespace, service_account)

    def waypoint_of(self, pod: PodIdentity) -> str | None:
        """As `runs_on_node`: the waypoint that the pod belongs to."""
        return self.compiler.index.waypoint_of_pod(pod.namespace, pod.pod, pod.uid, pod.service_account)

    async def run(self) -> None:
        """Does not end. A store that fails later on is tried again, the mesh staying as it is; raises StoreError only
        when it fails before anything was read."""
        backoff = Backoff(0.1, 10.0)
        while True:
            try:
                await self._follow(backoff)
            except StoreError as error:
                if not self.synced.is_set():
                    raise
                log.error("%s; the mesh stays as it is", error)
            await asyncio.sleep(backoff.after_failure(random.random()))

    async def _follow(self, backoff: Backoff) -> None:
        compiler = Compiler(self._options)
        async for event in self._store.watch(WATCHED):
            if event.change is Change.SYNCED:
                self._begin(compiler)
                backoff.succeeded()
                continue
            compiler.take(event)
            if compiler is self.compiler:
                self._gather()

    def _begin(self, compiler: Compiler) -> None:
        """Everything has been read: only now may it take the place of what was there before."""
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self.compiler = compiler
        changes = compiler.changes()
        self._publish(compiler.everything(), compiler.all_routing())
        self._look_at_problems(compiler, changes)
        self.synced.set()

    def _gather(self) -> None:
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(GATHER, self._pass_on)

    def _pass_on(self) -> None:
        self._gathering = None
        changes = self.compiler.changes()
        if changes.update != _UNCHANGED or changes.routing != NO_ROUTING:
            self._publish(changes.update, changes.routing)
        self._look_at_problems(self.compiler, changes)
