"""What no event tells: sandboxes that were made anew, pods that ended unnoticed, leftovers. Looked for now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from controller.store.interface import Object, Store, StoreError
from deploy.mirror import Mirror
from deploy.node import pods
from deploy.node.agent import NodeAgent
from deploy.node.annotation import NOTHING, annotate, annotated
from deploy.node.gate import Gate
from deploy.node.networks import PodNetworks

log = logging.getLogger("repair")

INTERVAL = 5.0  # seconds; a look at a hundred pods takes some milliseconds


class Repair:
    """Of one node."""

    def __init__(
        self,
        node: str,
        store: Store,
        mirror: Mirror,
        networks: PodNetworks,
        agent: NodeAgent,
        gate: Gate,
        check: Callable[[], None],
    ) -> None:
        """`check` looks whether the kernel's programs are there at all, and may raise OSError."""
        self._node, self._store, self._check = node, store, check
        self._mirror, self._networks, self._agent, self._gate = mirror, networks, agent, gate

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.once()
            except (OSError, StoreError) as error:
                log.warning("%s", error)

    async def once(self) -> None:
        for uid in self._networks.known():
            self._networks.look_again(uid)
        self._agent.look()
        ended = [uid for uid in over(self._known(), self._mirror.of("Pod")) if self._networks.has_ended(uid)]
        for uid in ended:
            self._networks.forget(uid)
        await asyncio.gather(*(self._gate.release(uid) for uid in ended))
        self._agent.sweep()
        await self._tidy()
        self._check()

    async def _tidy(self) -> None:
        """A pod that has ended keeps its object: it must not say of itself that it is in the mesh."""
        left = [pod for pod in annotated(self._mirror.of("Pod"), self._node) if pods.has_ended(pod)]
        for pod in left:
            if pods.uid(pod) not in self._agent.known():
                await annotate(self._store, pod, NOTHING)

    def _known(self) -> frozenset[str]:
        return self._agent.known() | self._networks.known()


def over(known: Iterable[str], objects: Iterable[Object]) -> frozenset[str]:
    """The uids of known pods that have no object any more, or whose object says that they have ended. Pure."""
    going_on = {pods.uid(pod) for pod in objects if not pods.has_ended(pod)}
    return frozenset(known) - going_on
