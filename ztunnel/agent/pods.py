"""The enrolled pods of this node: their sockets, and what the kernel and the workers have to know of each."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from ebpf.netns import in_netns, netns_cookie
from mesh.model.address import Ip
from mesh.model.workload import WorkloadUid
from ztunnel.agent.sockets import PodSockets, SocketError, open_sockets
from ztunnel.agent.workers import Parcel, Workers
from ztunnel.agent.zds import Add
from ztunnel.feed import PodAdded, PodRemoved

LINGER = 5.0  # seconds that peers may need to hear that a pod has left the mesh
RETRY_AFTER = 5.0  # seconds, as in Istio: a port in use may become free
SERVE_WITHIN = 4.0  # seconds for the workers to take a pod (a worker's restart takes one): the node agent waits for it

log = logging.getLogger("pods")


class PodError(Exception):
    """A pod cannot be served now; the text says why. It is tried again."""


class Steering(Protocol):
    """The part of ebpf.node.Capture that is used here."""

    def steer_inbound(self, ip: Ip, listener_fd: int) -> None: ...
    def unsteer_inbound(self, ip: Ip) -> None: ...


@dataclass(frozen=True, slots=True)
class Pod:
    """One enrolled pod. `sockets` are there while it is up; `error` says why not."""

    uid: str  # of the Kubernetes object
    workload: WorkloadUid
    name: str
    namespace: str
    service_account: str
    netns: int
    cookie: int
    sockets: PodSockets | None = None
    error: str = ""

    def parcel(self) -> Parcel | None:
        """What a worker gets."""
        if self.sockets is None:
            return None
        message = PodAdded(
            uid=self.workload,
            name=self.name,
            namespace=self.namespace,
            service_account=self.service_account,
            netns_cookie=self.cookie,
            addresses=self.sockets.addresses,
            sockets=self.sockets.roles,
        )
        return message, (self.netns, *self.sockets.descriptors)


@dataclass(frozen=True, slots=True)
class SocketOptions:
    ipv6: bool
    reuse_port: bool


class Pods:
    """`changed` is called after each change of what is here. One caller at a time, except for `close`."""

    def __init__(
        self, cluster_id: str, options: SocketOptions, steering: Steering, workers: Workers, changed: Callable[[], None]
    ) -> None:
        self._cluster_id = cluster_id
        self._options = options
        self._steering = steering
        self._workers = workers
        self._changed = changed
        self._pods: dict[str, Pod] = {}
        self._owner_of: dict[Ip, str] = {}  # which pod the kernel steers an address to
        self.started = 0
        self.stopped = 0

    def __iter__(self) -> Iterator[Pod]:
        return iter(self._pods.values())

    def get(self, uid: str) -> Pod | None:
        return self._pods.get(uid)

    @property
    def pending(self) -> list[Pod]:
        return [pod for pod in self._pods.values() if pod.error]

    async def add(self, add: Add) -> Pod:
        """Returns when it is served. Raises PodError; the pod is remembered and `retry` tries again."""
        cookie = await self._cookie(add)
        known = self._pods.get(add.uid)
        if known is not None and known.cookie == cookie:
            os.close(add.netns)
            return await self._serve(known) if known.error else known
        workload = WorkloadUid(f"{self._cluster_id}//Pod/{add.namespace}/{add.name}")
        for each in [pod for pod in self._pods.values() if pod.uid == add.uid or pod.workload == workload]:
            await self._replace(each)
        pod = Pod(add.uid, workload, add.name, add.namespace, add.service_account, add.netns, cookie)
        return await self._serve(pod)

    def remove(self, uid: str, linger: float = LINGER) -> None:
        """Its listeners close; connections that stand go on."""
        pod = self._pods.pop(uid, None)
        if pod is None:
            return
        self._take_down(pod, linger)
        os.close(pod.netns)
        log.info("pod %s/%s has left", pod.namespace, pod.name)
        self._changed()

    def keep_only(self, uids: frozenset[str]) -> None:
        for uid in self._pods.keys() - uids:
            self.remove(uid)

    async def retry(self, uid: str) -> None:
        """Tries a pod again if it failed. Another failure is noted, and logged if it is a new one."""
        pod = self._pods.get(uid)
        if pod is None or not pod.error:
            return
        try:
            await self._serve(pod)
        except PodError:
            pass

    def close(self) -> None:
        """Only the workers hold listeners now: when they close theirs, connections are refused."""
        for pod in self._pods.values():
            if pod.sockets is not None:
                pod.sockets.close()
            os.close(pod.netns)
        self._pods.clear()

    async def _cookie(self, add: Add) -> int:
        try:
            return await asyncio.to_thread(netns_cookie, add.netns)
        except OSError as error:
            os.close(add.netns)
            raise PodError(
                f"pod {add.namespace}/{add.name} has no usable network namespace: {error.strerror}"
            ) from error

    async def _replace(self, old: Pod) -> None:
        """The same pod has a new network namespace (its sandbox was made anew), or an earlier one of its name has ended
        and the node agent has yet to say so."""
        self.remove(old.uid, linger=0)
        try:
            await asyncio.wait_for(self._workers.released(old.workload), SERVE_WITHIN)
        except TimeoutError:
            log.warning("a worker still serves the old namespace of pod %s/%s", old.namespace, old.name)

    async def _serve(self, pod: Pod) -> Pod:
        self._pods[pod.uid] = pod
        try:
            served = await self._start(pod)
        except PodError as error:
            self._failed(pod, str(error))
            raise
        log.info("pod %s/%s is served (%s)", pod.namespace, pod.name, ", ".join(served.sockets.addresses))  # type: ignore[union-attr]
        self.started += 1
        self._changed()
        return served

    async def _start(self, pod: Pod) -> Pod:
        options = self._options
        try:
            sockets = await asyncio.to_thread(
                in_netns, pod.netns, lambda: open_sockets(options.ipv6, options.reuse_port)
            )
        except (SocketError, OSError) as error:
            raise PodError(str(error)) from error
        up = self._pods[pod.uid] = replace(pod, sockets=sockets, error="")
        try:
            self._steer(up, sockets)
            parcel = up.parcel()
            assert parcel is not None
            self._workers.publish(*parcel)
            await self._until_served(up)
        except PodError:
            self._take_down(up, linger=0)
            raise
        return up

    def _steer(self, pod: Pod, sockets: PodSockets) -> None:
        for ip in sockets.addresses:
            try:
                self._steering.steer_inbound(ip, sockets.inbound)
            except OSError as error:
                raise PodError(f"inbound connections to {ip} cannot be captured: {error.strerror}") from error
            self._owner_of[ip] = pod.uid

    async def _until_served(self, pod: Pod) -> None:
        try:
            reason = await asyncio.wait_for(self._workers.served(pod.workload), SERVE_WITHIN)
        except TimeoutError as error:
            raise PodError(f"no worker took the pod within {SERVE_WITHIN:g} s") from error
        if reason:
            raise PodError(reason)

    def _take_down(self, pod: Pod, linger: float) -> None:
        if pod.sockets is None:
            return
        for ip in pod.sockets.addresses:
            if self._owner_of.get(ip) == pod.uid:
                del self._owner_of[ip]
                self._steering.unsteer_inbound(ip)
        self._workers.publish(PodRemoved(pod.workload, linger))
        pod.sockets.close()
        self.stopped += 1

    def _failed(self, pod: Pod, reason: str) -> None:
        before = self._pods.get(pod.uid)
        if before is None or before.error != reason:
            log.error("pod %s/%s cannot be served: %s", pod.namespace, pod.name, reason)
        self._pods[pod.uid] = replace(pod, sockets=None, error=reason)
        self._changed()
