"""What the CNI plugin asks, answered: may this pod's containers start, and this pod has ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from controller.store import kinds
from controller.store.interface import NotFound, Object, Store, StoreError
from deploy.mirror import Mirror
from deploy.node import pods
from deploy.node.admission import Refused, Request
from deploy.node.agent import NodeAgent
from deploy.node.networks import PodNetworks
from mesh.model.enrolment import DATAPLANE_MODE

log = logging.getLogger("gate")

KNOWN_WITHIN = 5.0  # seconds for the watch to bring a pod that the kubelet has been told of already
GLANCE = 0.02  # seconds between two looks for it
ASKED_WITHIN = 2.0  # seconds for the API server to say what a namespace's label is


class Gate:
    """`host_root` is where this process sees the host's files; `patience` bounds each answer, in seconds."""

    def __init__(
        self,
        node: str,
        store: Store,
        mirror: Mirror,
        networks: PodNetworks,
        agent: NodeAgent,
        excluded: frozenset[str],
        host_root: Path,
        patience: float,
    ) -> None:
        self._node, self._store, self._mirror = node, store, mirror
        self._networks, self._agent = networks, agent
        self._excluded, self._host_root, self._patience = excluded, host_root, patience
        self._releasing: dict[str, asyncio.Task[None]] = {}

    async def add(self, request: Request) -> None:
        """Returns when the pod may start. Raises Refused."""
        if request.namespace in self._excluded:
            return
        reason = "the label of its namespace has not been heard of yet"

        def told(text: str) -> None:
            nonlocal reason
            reason = text

        try:
            async with asyncio.timeout(self._patience):
                pod = await self._object(request)
                if pod is None:
                    return
                if not self._wanted(pod):
                    await self._hear(request.namespace)
                told("its earlier sandbox is still leaving the mesh")
                await self._join(pods.uid(pod), request, told)
        except TimeoutError as error:
            name = f"{request.namespace}/{request.name}"
            raise Refused(f"pod {name} is not in the mesh after {self._patience:g} s: {reason}") from error

    async def delete(self, request: Request) -> None:
        """A sandbox has ended. Another one of the same pod may have been made since: then there is nothing to do."""
        uid = self._mirrored(request.uid)
        if uid and self._networks.is_of(uid, request.container):
            self._networks.forget(uid)
            await self.release(uid)

    async def release(self, uid: str) -> None:
        """Returns when the pod has left the mesh."""
        if uid not in self._releasing:
            task = self._releasing[uid] = asyncio.create_task(self._agent.released(uid))
            task.add_done_callback(lambda _: self._releasing.pop(uid, None))
        await asyncio.wait({self._releasing[uid]}, timeout=self._patience)

    # --- inside

    async def _join(self, uid: str, request: Request, told: Callable[[str], None]) -> None:
        if uid in self._releasing:
            await asyncio.wait({self._releasing[uid]})
        try:
            self._networks.told(uid, self._on_host(request.netns), request.container)
        except (OSError, ValueError) as error:
            raise Refused(f"the network namespace of pod {request.namespace}/{request.name}: {error}") from error
        await self._agent.admitted(uid, told, request.addresses)

    def _on_host(self, path: str) -> Path:
        return self._host_root / path.lstrip("/")

    async def _object(self, request: Request) -> Object | None:
        """The pod as the mirror has it; None: it is not wanted in the mesh, as far as can be known. Raises Refused."""
        deadline = asyncio.get_running_loop().time() + KNOWN_WITHIN
        while asyncio.get_running_loop().time() < deadline:
            found = self._mirror.get("Pod", request.namespace, request.name)
            if found is not None and self._is(found, request):
                return found
            await asyncio.sleep(GLANCE)
        await self._unseen(request)
        return None

    async def _unseen(self, request: Request) -> None:
        """Returns if a pod that the watch has not brought is certainly not to be captured. Raises Refused."""
        name = f"{request.namespace}/{request.name}"
        try:
            found: Object = await self._store.get(kinds.POD, request.name, request.namespace)
        except NotFound:  # deleted meanwhile, or a static pod without its mirror: only its namespace can say
            found = {"metadata": {"namespace": request.namespace, "name": request.name}, "spec": {}}
        except StoreError as error:
            raise Refused(f"pod {name} is not known here, and cannot be asked for: {error}") from error
        decision = self._agent.decision(found)
        if decision is None or decision.wanted:
            raise Refused(f"pod {name} has not been seen by the watch of this node's pods yet")

    def _wanted(self, pod: Object) -> bool:
        decision = self._agent.decision(pod)
        return decision is not None and decision.wanted

    async def _hear(self, namespace: str) -> None:
        """Returns when the mirror has the namespace's label as the API server has it: who sets it and makes a pod then
        means that pod, and watches of different kinds may lag differently. When the API server does not answer, what is
        known counts, as for the plugin without an agent."""
        try:
            while True:
                said = await self._label_of(namespace)
                if said == _label(self._mirror.get("Namespace", "", namespace)):
                    return
                await asyncio.sleep(GLANCE)
        except NotFound:
            return  # it is on its way out, and its pods with it
        except (StoreError, TimeoutError) as error:
            why = str(error) or "it takes too long"
            log.warning("namespace %s: its label is taken as it was known before: %s", namespace, why)

    async def _label_of(self, namespace: str) -> str | None:
        async with asyncio.timeout(ASKED_WITHIN):
            return _label(await self._store.get(kinds.NAMESPACE, namespace))

    def _is(self, pod: Object, request: Request) -> bool:
        return not request.uid or request.uid in (pods.uid(pod), pods.sandbox_uid(pod, self._node))

    def _mirrored(self, sandbox_uid: str) -> str:
        """The uid of the pod's object, by that which the plugin knows."""
        found = (mirror for mirror, static in self._networks.static.items() if static == sandbox_uid)
        return next(found, sandbox_uid)


def _label(namespace: Object | None) -> str | None:
    return (namespace["metadata"].get("labels") or {}).get(DATAPLANE_MODE) if namespace else None
