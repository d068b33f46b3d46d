"""The node agent's shell: watches pods and namespaces, and takes the steps that `reconcile` names."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from controller.store import kinds
from controller.store.interface import Change, Event, Key, NotFound, Object, Store, StoreError
from deploy.node.reconcile import Desired, Observed, Step, next_step, says_pending
from deploy.node.zds import NotServed, Pod, ZdsServer
from ebpf import netns
from ebpf.node import Capture
from mesh.model.enrolment import (
    REDIRECTION,
    REDIRECTION_ENABLED,
    REDIRECTION_PENDING,
    decide,
)
from mesh.runtime.backoff import Backoff

logger = logging.getLogger("enrolment")

RETRY_START, RETRY_CAP = 0.05, 5.0  # seconds: as Istio's CNI agent waits for ztunnel
TERMINAL = ("Succeeded", "Failed")
SETTLE_GLANCE = 0.01  # seconds: how long a new pod's containers may wait for nothing


class PodNetworks(Protocol):
    """How this home finds a pod's network namespace."""

    def open(self, namespace: str, name: str, uid: str) -> int:
        """A descriptor of the pod's network namespace, for the caller to close. Raises OSError while there is none."""


class EnrolmentFailed(Exception):
    """A pod that must be captured is not; the text says why."""


@dataclass(frozen=True)
class Known:
    """A pod of this node, as the store has it, and where its network is (0: it has none yet, or no more)."""

    key: Key
    uid: str
    object: Object
    cookie: int = 0
    gone: bool = False


class NodeAgent:
    """`node` is the node's name; `zds` has been given `snapshot` and `changed` of this agent."""

    def __init__(self, node: str, store: Store, capture: Capture, networks: PodNetworks) -> None:
        self._node, self._store, self._capture, self._networks = node, store, capture, networks
        self._pods: dict[str, Known] = {}  # by uid
        self._namespaces: dict[str, Object] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._failures: dict[str, str] = {}
        self._synced = asyncio.Event()
        self.zds: ZdsServer | None = None

    # --- what others ask

    async def run(self) -> None:
        """Follows the store without end."""
        async for event in self._store.watch((kinds.NAMESPACE, kinds.POD)):
            self._take(event)

    async def enrolled(self, uid: str, patience: float) -> None:
        """Returns once pod `uid` is as its labels want it: a home holds a new pod's containers until then.

        Raises EnrolmentFailed after `patience` seconds, with the reason."""
        try:
            await asyncio.wait_for(self._settled(uid), patience)
        except TimeoutError:
            reason = self._failures.get(uid, "the node agent has not got to it")
            raise EnrolmentFailed(f"not captured after {patience:.0f} s: {reason}") from None

    def failures(self) -> dict[str, str]:
        """Why pods are not as wanted, by uid."""
        return dict(self._failures)

    def snapshot(self) -> Iterable[Pod]:
        """The pods that a ztunnel which connects must serve."""
        return [self._for_ztunnel(pod) for pod in self._pods.values() if self._desired(pod).wanted and pod.cookie]

    def changed(self) -> None:
        """What ztunnel serves has changed: look at every pod again."""
        for uid in list(self._pods):
            self._look_at(uid)

    # --- what the store says

    def _take(self, event: Event) -> None:
        if event.change is Change.SYNCED:
            self._forget_strangers()
            self._synced.set()
        elif event.key is not None and event.object is not None:
            take = self._take_namespace if event.key.kind == "Namespace" else self._take_pod
            take(event.key, event.object, event.change is Change.DELETED)

    def _take_namespace(self, key: Key, obj: Object, deleted: bool) -> None:
        if deleted:
            self._namespaces.pop(key.name, None)
        else:
            self._namespaces[key.name] = obj
        for uid, pod in self._pods.items():
            if pod.key.namespace == key.name:
                self._look_at(uid)

    def _take_pod(self, key: Key, obj: Object, deleted: bool) -> None:
        uid = str(obj["metadata"].get("uid", ""))
        known = self._pods.get(uid)
        if obj.get("spec", {}).get("nodeName") != self._node or not uid:
            return
        ended = deleted or obj.get("status", {}).get("phase") in TERMINAL
        if known is None and ended:
            return
        self._pods[uid] = Known(key, uid, obj, known.cookie if known else 0, ended)
        self._look_at(uid)

    def _forget_strangers(self) -> None:
        """What an earlier run has captured for pods that are no more. Cookies are never used twice: nobody needs it."""
        for uid in self._capture.attached_inbound() - self._pods.keys():
            self._capture.detach_inbound(uid)
        known = {self._find_network(pod).cookie for pod in self._pods.values()}
        for cookie in self._capture.enrolled() - known:
            self._capture.withdraw(cookie)

    # --- one pod

    def _look_at(self, uid: str) -> None:
        self._again.add(uid)
        if uid not in self._tasks:
            self._tasks[uid] = asyncio.get_running_loop().create_task(self._bring_about(uid))

    async def _bring_about(self, uid: str) -> None:
        """Step by step until all is as wanted; after a failure again, later each time."""
        await self._synced.wait()
        backoff = Backoff(RETRY_START, RETRY_CAP)
        while uid in self._again:
            self._again.discard(uid)
            try:
                await self._take_steps(uid)
                backoff.succeeded()
            except (NotServed, OSError, StoreError) as error:
                self._failures[uid] = str(error)
                logger.warning("pod %s: %s", self._pods[uid].key, error)
                self._again.add(uid)
                await asyncio.sleep(backoff.after_failure(random.random()))
        del self._tasks[uid]

    async def _take_steps(self, uid: str) -> None:
        while (pod := self._pods.get(uid)) is not None:
            pod = self._pods[uid] = self._find_network(pod)
            step = next_step(self._desired(pod), self._observe(pod))
            if step is None:
                self._failures.pop(uid, None)
                if pod.gone:
                    del self._pods[uid]
                return
            await self._take_step(step, pod)

    async def _take_step(self, step: Step, pod: Known) -> None:
        try:
            await self._do(step, pod)
        except (NotServed, OSError) as error:
            if says_pending(step, self._observe(pod)):
                await self._annotate(pod, REDIRECTION_PENDING)
            raise NotServed(f"{step.value}: {error}") from error

    async def _do(self, step: Step, pod: Known) -> None:
        if step is Step.SERVE:
            await self._ztunnel().add(self._for_ztunnel(pod))
        elif step is Step.UNSERVE:
            await self._ztunnel().delete(pod.uid)
        elif step in (Step.ANNOUNCE, Step.RETRACT):
            await self._annotate(pod, REDIRECTION_ENABLED if step is Step.ANNOUNCE else None)
        else:
            self._set_capture(step, pod)

    def _set_capture(self, step: Step, pod: Known) -> None:
        if step is Step.CAPTURE_OUTBOUND:
            self._capture.enrol(pod.cookie)
        elif step is Step.RELEASE_OUTBOUND:
            self._capture.withdraw(pod.cookie)
        elif step is Step.RELEASE_INBOUND:
            self._capture.detach_inbound(pod.uid)
        else:
            descriptor = self._open(pod)
            try:
                self._capture.attach_inbound(descriptor, pod.uid)
            finally:
                os.close(descriptor)

    async def _annotate(self, pod: Known, value: str | None) -> None:
        def edit(obj: dict[str, Any]) -> None:
            annotations = obj["metadata"].setdefault("annotations", {})
            if value is None:
                annotations.pop(REDIRECTION, None)
            else:
                annotations[REDIRECTION] = value

        try:
            changed = await self._store.change(pod.key, edit)
        except NotFound:
            self._pods[pod.uid] = replace(self._pods[pod.uid], gone=True)
        else:
            if changed["metadata"].get("uid") == pod.uid and pod.uid in self._pods:
                self._pods[pod.uid] = replace(self._pods[pod.uid], object=changed)

    # --- what is true

    def _desired(self, pod: Known) -> Desired:
        metadata, spec = pod.object["metadata"], pod.object.get("spec", {})
        namespace = self._namespaces.get(pod.key.namespace, {})
        enrolment = decide(
            pod.key.namespace,
            namespace.get("metadata", {}).get("labels") or {},
            metadata.get("labels") or {},
            metadata.get("annotations") or {},
            bool(spec.get("hostNetwork")),
        )
        return Desired(enrolment.wanted, present=bool(pod.cookie) and not pod.gone)

    def _observe(self, pod: Known) -> Observed:
        return Observed(
            served=self.zds is not None and self.zds.serves(pod.uid),
            inbound=pod.uid in self._capture.attached_inbound(),
            outbound=pod.cookie in self._capture.enrolled(),
            annotation=(pod.object["metadata"].get("annotations") or {}).get(REDIRECTION),
        )

    def _find_network(self, pod: Known) -> Known:
        """The cookie is remembered: when the namespace has gone, the map's entry must still be found."""
        try:
            descriptor = self._open(pod)
        except OSError:
            return pod
        try:
            cookie = netns.netns_cookie(descriptor)
        finally:
            os.close(descriptor)
        if pod.cookie not in (0, cookie):
            self._release_former_network(pod)
        return replace(pod, cookie=cookie)

    def _release_former_network(self, pod: Known) -> None:
        """The pod's sandbox was made anew: what was captured in the old one is captured again in the new one."""
        self._capture.withdraw(pod.cookie)
        self._capture.detach_inbound(pod.uid)
        if self.zds is not None:
            self.zds.forget(pod.uid)

    async def _settled(self, uid: str) -> None:
        await self._synced.wait()
        while True:
            pod = self._pods.get(uid)
            if pod is not None:
                pod = self._pods[uid] = self._find_network(pod)
                if pod.cookie and next_step(self._desired(pod), self._observe(pod)) is None:
                    return
                self._look_at(uid)
            await asyncio.sleep(SETTLE_GLANCE)

    def _for_ztunnel(self, pod: Known) -> Pod:
        account = pod.object.get("spec", {}).get("serviceAccountName") or "default"
        return Pod(pod.uid, pod.key.name, pod.key.namespace, str(account), lambda: self._open(pod))

    def _open(self, pod: Known) -> int:
        return self._networks.open(pod.key.namespace, pod.key.name, pod.uid)

    def _ztunnel(self) -> ZdsServer:
        if self.zds is None:
            raise NotServed("ztunnel is not connected to the node agent")
        return self.zds
