"""The node agent: watches pods and namespaces, and takes each pod of its node step by step to where it is wanted.

What is to be done next is decided by `enrol`; this is the shell that looks, acts and tries again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from controller.store.interface import Key, NotFound, Object, Store, StoreError
from deploy.mirror import Mirror
from deploy.node.enrol import Observed, Step, is_enrolled, next_step
from deploy.node.zds import Member, NotServed, ZdsServer
from ebpf.netns import netns_cookie
from mesh.model.address import Ip, canonical
from mesh.model.enrolment import REDIRECTION, REDIRECTION_ENABLED, REDIRECTION_PENDING, REDIRECTION_REASON, decide
from mesh.runtime.backoff import Backoff

log = logging.getLogger("node-agent")

PATIENCE = 5.0  # seconds a running pod goes on in plain text while ztunnel cannot take it; a restart takes two
FIRST_RETRY, LONGEST_RETRY = 0.05, 5.0  # seconds; Istio's agent has the same cap


class Capture(Protocol):
    """The kernel's side (ebpf.node.Capture)."""

    def enrol(self, netns_cookie: int, addresses: Iterable[Ip] = ()) -> None: ...
    def withdraw(self, netns_cookie: int) -> None: ...
    def enrolled(self) -> frozenset[int]: ...
    def attach_inbound(self, netns_fd: int, name: str) -> None: ...
    def detach_inbound(self, name: str) -> None: ...
    def attached_inbound(self) -> frozenset[str]: ...


class Networks(Protocol):
    """Where the pods of this node have their network namespaces."""

    def netns(self, uid: str) -> Path | None:
        """None: there is none, not yet or not any more."""


@dataclass(slots=True)
class _Pod:
    """What the agent remembers of a pod between two looks at it."""

    object: Object
    netns: Path
    cookie: int
    announced: bool = False
    problem: str = ""
    problem_since: float = 0.0
    leaving: bool = False  # it has ended: it leaves the mesh whatever its labels say
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # it is where it is wanted
    disturbed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def key(self) -> Key:
        return Key("Pod", self.object["metadata"]["namespace"], self.object["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class _Kernel:
    """What the kernel has: pods whose inbound connections are steered, by uid, and captured ones, by cookie."""

    attached: frozenset[str]
    captured: frozenset[int]


class NodeAgent:
    """`run` until cancelled. Pods are known by their uid."""

    def __init__(
        self, node: str, store: Store, mirror: Mirror, networks: Networks, capture: Capture, zds_path: Path
    ) -> None:
        """`mirror` follows Pods and Namespaces; its owner runs it."""
        self._node, self._store, self._mirror, self._networks = node, store, mirror, networks
        self._capture = capture
        self._zds = ZdsServer(zds_path, self._members, self._disturb_all)
        self._pods: dict[str, _Pod] = {}

    async def run(self) -> None:
        """Raises OSError: the ZDS socket cannot be made."""
        await self._mirror.synced.wait()
        self.look()
        self._sweep()
        serving = asyncio.create_task(self._zds.serve())
        following = asyncio.create_task(self._follow())
        try:
            await asyncio.gather(serving, following)
        finally:
            for task in (serving, following, *(pod.task for pod in self._pods.values() if pod.task)):
                task.cancel()

    # --- for who runs the pods

    async def admitted(self, uid: str, told: Callable[[str], None]) -> None:
        """Returns once the pod may send its first packet: it is captured, or not to be. Its namespace must exist."""
        self.look()
        while True:
            pod = self._pods.get(uid)
            if pod is not None:
                if pod.settled.is_set():
                    return
                told(pod.problem or "the pod is being enrolled into the mesh")
                await _first(pod.settled, pod.disturbed)
            await asyncio.sleep(0.02)

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
        del self._pods[uid]

    def look(self) -> None:
        """Take in pods whose namespaces have come; look again at those that may be wanted elsewhere."""
        for obj in self._mirror.of("Pod"):
            uid = obj["metadata"]["uid"]
            if obj["spec"].get("nodeName") == self._node:
                if uid in self._pods:
                    self._pods[uid].object = obj
                else:
                    self._take_in(uid, obj)
        self._disturb_all()

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
        pod = self._pods[uid] = _Pod(obj, netns, cookie)
        pod.task = asyncio.create_task(self._tend(uid, pod))

    def _sweep(self) -> None:
        """What an earlier agent left of pods that have gone since. A pod whose object is gone and that still runs, to
        its end, stays captured."""
        living = {pod.cookie for pod in self._pods.values()}
        for uid in self._capture.attached_inbound() - self._pods.keys():
            cookie = self._cookie(uid)
            if cookie is None:
                self._capture.detach_inbound(uid)
            else:
                living.add(cookie)
        for cookie in self._capture.enrolled() - living:
            self._capture.withdraw(cookie)

    def _forget(self, uid: str) -> None:
        """A pod that an earlier agent enrolled, and that ended before this one had seen it."""
        cookie = self._cookie(uid)
        if cookie is not None:
            self._capture.withdraw(cookie)
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

    def _disturb(self, pod: _Pod, kernel: _Kernel) -> None:
        if self._next(pod, kernel) is not None:
            pod.settled.clear()
        pod.disturbed.set()

    def _kernel(self) -> _Kernel:
        return _Kernel(self._capture.attached_inbound(), self._capture.enrolled())

    def _members(self) -> Iterator[Member]:
        """Those that ztunnel is to serve: all that are wanted in the mesh, and all that still are captured."""
        kernel = self._kernel()
        for uid, pod in self._pods.items():
            if not pod.leaving and (self._wanted(pod, kernel) or pod.cookie in kernel.captured):
                pod.announced = True
                yield _member(uid, pod)

    def _wanted(self, pod: _Pod, kernel: _Kernel) -> bool:
        if pod.leaving or pod.object.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return False
        metadata, spec = pod.object["metadata"], pod.object["spec"]
        namespace = self._mirror.get("Namespace", "", metadata["namespace"])
        if namespace is None:  # going, and its pods with it: they stay what they are until they have ended
            return pod.cookie in kernel.captured
        found = decide(
            metadata["namespace"],
            namespace["metadata"].get("labels") or {},
            metadata.get("labels") or {},
            metadata.get("annotations") or {},
            bool(spec.get("hostNetwork")),
        )
        return found.wanted

    def _next(self, pod: _Pod, kernel: _Kernel) -> Step | None:
        return next_step(self._wanted(pod, kernel), self._observe(pod, kernel))

    def _observe(self, pod: _Pod, kernel: _Kernel) -> Observed:
        uid = pod.object["metadata"]["uid"]
        present = self._mirror.get(*_triple(pod.key))
        same = present is not None and present["metadata"]["uid"] == uid
        annotations = (pod.object["metadata"].get("annotations") or {}) if same else {}
        waited = asyncio.get_running_loop().time() - pod.problem_since
        return Observed(
            served=self._zds.serves(uid),
            announced=pod.announced,
            attached=uid in kernel.attached,
            captured=pod.cookie in kernel.captured,
            annotation=annotations.get(REDIRECTION),
            gone=not same,
            problem=pod.problem,
            confessed=annotations.get(REDIRECTION_REASON, ""),
            impatient=bool(pod.problem) and waited > PATIENCE,
        )

    async def _tend(self, uid: str, pod: _Pod) -> None:
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

    def _note(self, pod: _Pod, step: Step, problem: str) -> None:
        if not pod.problem:
            pod.problem_since = asyncio.get_running_loop().time()
        if pod.problem != problem:
            log.warning("%s: %s: %s", pod.key, step.value, problem)
        pod.problem = problem

    async def _take(self, step: Step, uid: str, pod: _Pod) -> None:
        match step:
            case Step.ANNOUNCE:
                pod.announced = True
                await self._zds.add(_member(uid, pod))
                pod.problem = ""
            case Step.ATTACH:
                _with_netns(pod.netns, lambda netns: self._capture.attach_inbound(netns, uid))
            case Step.CAPTURE:
                self._capture.enrol(pod.cookie, _addresses(pod.object))
            case Step.PUBLISH:
                await self._annotate(pod, {REDIRECTION: REDIRECTION_ENABLED, REDIRECTION_REASON: None})
            case Step.CONFESS:
                await self._annotate(pod, {REDIRECTION: REDIRECTION_PENDING, REDIRECTION_REASON: pod.problem})
            case Step.UNPUBLISH:
                await self._annotate(pod, {REDIRECTION: None, REDIRECTION_REASON: None})
            case Step.WITHDRAW:
                self._capture.withdraw(pod.cookie)
            case Step.DETACH:
                self._capture.detach_inbound(uid)
            case Step.RETIRE:
                await self._zds.delete(uid)
                pod.announced = False

    async def _annotate(self, pod: _Pod, values: dict[str, str | None]) -> None:
        """None removes. A pod that has gone meanwhile needs no annotation."""
        uid = pod.object["metadata"]["uid"]

        def edit(obj: dict[str, Any]) -> None:
            if obj["metadata"]["uid"] != uid:
                return
            annotations = {**(obj["metadata"].get("annotations") or {}), **values}
            obj["metadata"]["annotations"] = {name: value for name, value in annotations.items() if value is not None}

        try:
            changed = await self._store.change(pod.key, edit)
        except NotFound:
            return
        if changed["metadata"]["uid"] == uid:
            pod.object = changed

    def enrolled(self) -> frozenset[str]:
        """The uids of the pods of which no packet can pass ztunnel by."""
        kernel = self._kernel()
        return frozenset(uid for uid, pod in self._pods.items() if is_enrolled(self._observe(pod, kernel)))


def _addresses(pod: Object) -> list[Ip]:
    """As the pod's status has them: known before anything of it runs."""
    return [canonical(each["ip"]) for each in pod.get("status", {}).get("podIPs") or () if each.get("ip")]


def _member(uid: str, pod: _Pod) -> Member:
    metadata = pod.object["metadata"]
    account = pod.object["spec"].get("serviceAccountName") or "default"
    return Member(uid, metadata["name"], metadata["namespace"], account, pod.netns)


def _triple(key: Key) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


def _with_netns(netns: Path, action: Callable[[int], None]) -> None:
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
