"""The node agent: watches pods and namespaces, and takes each pod of its node step by step to where it is wanted.

What is to be done next is decided by `enrol`; this is the shell that looks, acts and tries again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from controller.store.interface import Key, Object, Store, StoreError
from deploy.mirror import Mirror
from deploy.node import leftovers
from deploy.node.annotation import annotate
from deploy.node.around import Capture, Networks
from deploy.node.enrol import Observed, Step, is_enrolled, next_step
from deploy.node.pods import has_ended, is_on_host
from deploy.node.remembered import Kernel, Pod
from deploy.node.zds import Member, NotServed, ZdsServer
from ebpf.netns import netns_cookie
from mesh.model.address import Ip, canonical
from mesh.model.enrolment import (
    EXCLUDED_NAMESPACES,
    REDIRECTION,
    REDIRECTION_ENABLED,
    REDIRECTION_PENDING,
    REDIRECTION_REASON,
    Enrolment,
    decide,
)
from mesh.runtime.backoff import Backoff

log = logging.getLogger("node-agent")

PATIENCE = 5.0  # seconds a running pod goes on in plain text while ztunnel cannot take it; a restart takes two
FIRST_RETRY, LONGEST_RETRY = 0.05, 5.0  # seconds; Istio's agent has the same cap


class NodeAgent:
    """`run` until cancelled. Pods are known by their uid."""

    def __init__(
        self,
        node: str,
        store: Store,
        mirror: Mirror,
        networks: Networks,
        capture: Capture,
        zds_path: Path,
        *,
        excluded: Collection[str] = EXCLUDED_NAMESPACES,
        welcome: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`mirror` follows Pods and Namespaces; its owner runs it. `welcome` gets the process of each ztunnel that
        connects, before that is told of any pod, and may raise NotServed."""
        self._node, self._store, self._mirror, self._networks = node, store, mirror, networks
        self._capture, self._excluded = capture, excluded
        self._zds = ZdsServer(zds_path, self._members, self._disturb_all, welcome)
        self._pods: dict[str, Pod] = {}
        self._withdrawing = False
        self.recaptured = 0  # times that a pod was found captured no more, though nobody here had let it go

    async def run(self) -> None:
        """Raises OSError: the ZDS socket cannot be made."""
        await self._mirror.synced.wait()
        self.look()
        self.sweep()
        serving = asyncio.create_task(self._zds.serve())
        following = asyncio.create_task(self._follow())
        try:
            await asyncio.gather(serving, following)
        finally:
            for task in (serving, following, *(pod.task for pod in self._pods.values() if pod.task)):
                task.cancel()

    # --- for who runs the pods

    async def admitted(self, uid: str, told: Callable[[str], None], addresses: tuple[Ip, ...] = ()) -> None:
        """Returns once the pod may send its first packet: it is captured and served, or not to be. Its namespace must
        exist. `addresses` are the pod's, if its object does not have them yet."""
        self.look()
        while True:
            pod = self._pods.get(uid)
            if pod is not None:
                pod.addresses = addresses or pod.addresses
                pod.stepped.clear()
                if self._may_start(pod):
                    return
                told(pod.problem or "the pod is being enrolled into the mesh")
                await _first(pod.settled, pod.stepped, pod.disturbed)
            await asyncio.sleep(0.02)

    def _may_start(self, pod: Pod) -> bool:
        """The mesh need not have been told yet: that waits for the API server, which a pod need not."""
        kernel = self._kernel()
        observed = self._observe(pod, kernel)
        if self._wanted(pod, kernel):
            return observed.served and is_enrolled(observed)
        return not (observed.attached or observed.captured)

    async def released(self, uid: str) -> None:
        """The pod has ended: returns once it has left the mesh, so that its namespace may go."""
        pod = self._pods.get(uid)
        if pod is None:
            self._forget(uid)
            return
        pod.leaving = True
        pod.settled.clear()
        self._disturb(pod, self._kernel())
        await pod.settled.wait()
        if pod.task:
            pod.task.cancel()
        if self._pods.get(uid) is pod:
            del self._pods[uid]

    async def withdraw_all(self) -> None:
        """Returns when every pod has left the mesh, whatever its labels say; none comes back while this agent runs."""
        self._withdrawing = True
        self.look()
        self.sweep()
        for pod in list(self._pods.values()):
            await pod.settled.wait()

    def look(self) -> None:
        """Take in pods whose namespaces have come; look again at those that may be wanted elsewhere."""
        for obj in self._mirror.of("Pod"):
            uid = obj["metadata"]["uid"]
            if obj["spec"].get("nodeName") == self._node and not is_on_host(obj):
                if uid in self._pods:
                    self._pods[uid].object = obj
                    self._follow_sandbox(uid, self._pods[uid])
                else:
                    self._take_in(uid, obj)
        self._disturb_all()

    def sweep(self) -> None:
        """Remove what was left of pods that have gone."""
        leftovers.sweep(self._capture, {uid: pod.cookie for uid, pod in self._pods.items()}, self._cookie)

    def known(self) -> frozenset[str]:
        """The uids of the pods that the agent looks after."""
        return frozenset(self._pods)

    def decision(self, obj: Object) -> Enrolment | None:
        """What is wanted of a pod; None while its namespace is not known."""
        metadata = obj["metadata"]
        namespace = self._mirror.get("Namespace", "", metadata["namespace"])
        if namespace is None:
            return None
        return decide(
            metadata["namespace"],
            namespace["metadata"].get("labels") or {},
            metadata.get("labels") or {},
            metadata.get("annotations") or {},
            is_on_host(obj),
            self._excluded,
        )

    # --- inside

    async def _follow(self) -> None:
        changed = self._mirror.listen()
        while True:
            await changed.wait()
            changed.clear()
            self.look()

    def _take_in(self, uid: str, obj: Object) -> None:
        netns, cookie = self._networks.netns(uid), self._cookie(uid)
        if netns is None or cookie is None:
            return
        pod = self._pods[uid] = Pod(obj, netns, cookie)
        pod.task = asyncio.create_task(self._tend(uid, pod))

    def _follow_sandbox(self, uid: str, pod: Pod) -> None:
        """A pod whose sandbox was made anew is enrolled in its new namespace. The old one has ended."""
        netns = self._networks.netns(uid)
        if netns is None or netns == pod.netns or pod.leaving:
            return
        cookie = self._cookie(uid)
        if cookie is not None:
            log.info("%s: its sandbox was made anew: network namespace %d, no more %d", pod.key, cookie, pod.cookie)
            self._end_capture(pod.cookie, pod)
            self._capture.detach_inbound(uid)
            pod.netns, pod.cookie, pod.captured = netns, cookie, False

    def _forget(self, uid: str) -> None:
        """A pod that an earlier agent enrolled, and that ended before this one had seen it."""
        cookie = self._cookie(uid)
        if cookie is not None:
            self._end_capture(cookie, None)
        self._capture.detach_inbound(uid)

    def _cookie(self, uid: str) -> int | None:
        netns = self._networks.netns(uid)
        try:
            return netns_cookie(netns) if netns is not None else None
        except OSError:
            return None

    def _disturb_all(self) -> None:
        kernel = self._kernel()
        for pod in self._pods.values():
            self._disturb(pod, kernel)

    def _disturb(self, pod: Pod, kernel: Kernel) -> None:
        if self._next(pod, kernel) is not None:
            pod.settled.clear()
        pod.disturbed.set()

    def _kernel(self) -> Kernel:
        return Kernel(self._capture.attached_inbound(), self._capture.enrolled())

    def _members(self) -> Iterator[Member]:
        """Those that ztunnel is to serve: all that are wanted in the mesh, and all that still are captured."""
        kernel = self._kernel()
        for uid, pod in self._pods.items():
            if not pod.leaving and (self._wanted(pod, kernel) or pod.cookie in kernel.captured):
                pod.announced = True
                yield _member(uid, pod)

    def _wanted(self, pod: Pod, kernel: Kernel) -> bool:
        if self._withdrawing or pod.leaving or has_ended(pod.object):
            return False
        decision = self.decision(pod.object)
        if decision is None:  # its namespace is going, and its pods with it: they stay what they are to their end
            return pod.cookie in kernel.captured
        return decision.wanted

    def _next(self, pod: Pod, kernel: Kernel) -> Step | None:
        return next_step(self._wanted(pod, kernel), self._observe(pod, kernel))

    def _observe(self, pod: Pod, kernel: Kernel) -> Observed:
        uid = pod.object["metadata"]["uid"]
        present = self._mirror.get(*_triple(pod.key))
        same = present is not None and present["metadata"]["uid"] == uid and not pod.leaving
        annotations = (pod.object["metadata"].get("annotations") or {}) if same else {}
        waited = asyncio.get_running_loop().time() - pod.problem_since
        captured = pod.cookie in kernel.captured
        if captured and not self._wanted(pod, kernel):
            captured = not self._is_of_another(pod.cookie, pod, kernel)
        return Observed(
            served=self._zds.serves(uid, pod.netns),
            announced=pod.announced,
            attached=uid in kernel.attached,
            captured=captured,
            annotation=annotations.get(REDIRECTION),
            gone=not same,
            problem=pod.problem,
            confessed=annotations.get(REDIRECTION_REASON, ""),
            impatient=bool(pod.problem) and waited > PATIENCE,
        )

    async def _tend(self, uid: str, pod: Pod) -> None:
        """Step after step until nothing is left to do, then wait to be disturbed."""
        backoff = Backoff(FIRST_RETRY, LONGEST_RETRY)
        while True:
            pod.disturbed.clear()
            step = self._next(pod, self._kernel())
            if step is None:
                backoff.succeeded()
                pod.settled.set()
                await pod.disturbed.wait()
                continue
            try:
                await self._take(step, uid, pod)
            except (NotServed, StoreError, OSError) as error:
                self._note(pod, step, str(error) or type(error).__name__)
                await _first(pod.disturbed, patience=backoff.after_failure(random.random()))
            else:
                log.debug("pod %s: %s: done", pod.key, step.value)
            pod.stepped.set()

    def _note(self, pod: Pod, step: Step, problem: str) -> None:
        if not pod.problem:
            pod.problem_since = asyncio.get_running_loop().time()
        if pod.problem != problem:
            log.warning("%s: %s: %s", pod.key, step.value, problem)
        pod.problem = problem

    async def _take(self, step: Step, uid: str, pod: Pod) -> None:
        match step:
            case Step.ANNOUNCE:
                pod.announced = True
                await self._zds.add(_member(uid, pod))
                pod.problem = ""
            case Step.ATTACH:
                with_netns(pod.netns, lambda netns: self._capture.attach_inbound(netns, uid))
            case Step.CAPTURE:
                self._capture_pod(pod)
            case Step.PUBLISH:
                await self._tell(pod, {REDIRECTION: REDIRECTION_ENABLED, REDIRECTION_REASON: None})
                pod.problem = ""
            case Step.CONFESS:
                await self._tell(pod, {REDIRECTION: REDIRECTION_PENDING, REDIRECTION_REASON: pod.problem})
            case Step.UNPUBLISH:
                await self._tell(pod, {REDIRECTION: None, REDIRECTION_REASON: None})
            case Step.WITHDRAW:
                self._let_go(pod)
            case Step.DETACH:
                self._capture.detach_inbound(uid)
            case Step.RETIRE:
                await self._zds.delete(uid)
                pod.announced = False

    def _capture_pod(self, pod: Pod) -> None:
        if pod.captured:
            self.recaptured += 1
            log.error("%s was captured and is not any more: its connections went out in clear; captured again", pod.key)
        self._capture.enrol(pod.cookie, _addresses(pod.object) or pod.addresses)
        pod.captured = True
        log.info("%s is captured (network namespace %d)", pod.key, pod.cookie)

    def _let_go(self, pod: Pod) -> None:
        pod.captured = False
        self._end_capture(pod.cookie, pod)
        log.info("%s is not captured any more (network namespace %d)", pod.key, pod.cookie)

    def _end_capture(self, cookie: int, leaving: Pod | None) -> None:
        if not self._is_of_another(cookie, leaving, self._kernel()):
            self._capture.withdraw(cookie)

    def _is_of_another(self, cookie: int, pod: Pod | None, kernel: Kernel) -> bool:
        """Whether a pod that stays in the mesh is in this network namespace. One that leaves, and has got there by
        whatever mistake, must not take the other's capture along."""
        others = (each for each in self._pods.values() if each is not pod and each.cookie == cookie)
        return any(self._wanted(each, kernel) for each in others)

    async def _tell(self, pod: Pod, values: dict[str, str | None]) -> None:
        changed = await annotate(self._store, pod.object, values)
        if changed is not None:
            pod.object = changed

    def figures(self) -> dict[str, int]:
        """How many pods are known here, and how many of them are enrolled, or wanted and not served."""
        kernel = self._kernel()
        observed = [(self._wanted(pod, kernel), self._observe(pod, kernel)) for pod in self._pods.values()]
        return {
            "known": len(observed),
            "enrolled": sum(is_enrolled(each) for _, each in observed),
            "pending": sum(wanted and not (each.served and is_enrolled(each)) for wanted, each in observed),
        }

    def ztunnels(self) -> int:
        return self._zds.connected


def _addresses(pod: Object) -> tuple[Ip, ...]:
    return tuple(canonical(each["ip"]) for each in pod.get("status", {}).get("podIPs") or () if each.get("ip"))


def _member(uid: str, pod: Pod) -> Member:
    metadata = pod.object["metadata"]
    account = pod.object["spec"].get("serviceAccountName") or "default"
    return Member(uid, metadata["name"], metadata["namespace"], account, pod.netns)


def _triple(key: Key) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


def with_netns(netns: os.PathLike[str], action: Callable[[int], None]) -> None:
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        action(descriptor)
    finally:
        os.close(descriptor)


async def _first(*events: asyncio.Event, patience: float | None = None) -> None:
    """Returns when one of the events is set, or the time is over."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
