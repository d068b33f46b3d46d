"""The life of one pod on its node: sandbox, enrolment, init containers, containers, end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from controller.authority.errors import AuthorityError
from controller.store.interface import Key, NotFound, Store, StoreError
from deploy.local import processes, programs
from deploy.local.addresses import NodeAddresses
from deploy.local.node import podstatus
from deploy.local.node.container_loop import ContainerLoop, Place, _grace, _now
from deploy.local.node.containers import Surroundings
from deploy.local.node.podstatus import Facts, Waiting
from deploy.local.node.projected import Projected
from deploy.local.node.sandbox import Sandboxes
from deploy.local.paths import Instance
from mesh.runtime.backoff import Backoff

log = logging.getLogger("kubelet")


class Gate(Protocol):
    """Who decides whether a pod's containers may start and its network may go: the node agent."""

    async def admitted(self, uid: str, told: Callable[[str], None]) -> None:
        """Returns once the pod may send its first packet; `told` hears what it waits for."""

    async def released(self, uid: str) -> None:
        """The pod has ended: returns once nothing uses its network namespace any more."""


@dataclass(frozen=True, slots=True)
class Home:
    """What a pod's worker works with."""

    instance: Instance
    node: NodeAddresses
    store: Store
    sandboxes: Sandboxes
    gate: Gate


class PodWorker:
    """Of one pod uid. `run` until the pod has ended; `terminate` ends it and removes what it left."""

    def __init__(self, pod: Mapping[str, Any], home: Home) -> None:
        self.pod, self._home = pod, home
        self.uid: str = pod["metadata"]["uid"]
        self._key = Key("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._facts = Facts(home.node.address, pod.get("status", {}).get("startTime") or _now(), (), ())
        self._loops: list[ContainerLoop] = []
        self._changed = asyncio.Event()
        self._life = asyncio.create_task(self._live())
        self._publisher = asyncio.create_task(self._publish())

    async def terminate(self) -> None:
        """SIGTERM, the grace period, SIGKILL; then the pod leaves the mesh and its sandbox is removed."""
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        await processes.stop(self._cgroup, self._grace())
        await self._remove_sandbox()
        self._publisher.cancel()

    def abandon(self) -> None:
        """The node process ends; the pod goes on."""
        self._life.cancel()
        self._publisher.cancel()

    async def _live(self) -> None:
        backoff = Backoff(0.5, 30.0)
        while True:
            try:
                await self._live_once()
                return
            except (OSError, ValueError, KeyError, TypeError, AttributeError, AuthorityError) as error:
                # A pod that cannot be set up says so and is tried again; it never takes its node down with it.
                log.exception("pod %s/%s cannot be run", self._key.namespace, self._key.name)
                self._block(Waiting("FailedCreatePodSandBox", str(error) or type(error).__name__))
                await asyncio.sleep(backoff.after_failure(random.random()))

    async def _live_once(self) -> None:
        home, pod = self._home, self.pod
        sandbox = await asyncio.to_thread(home.sandboxes.make, pod)
        around = home.sandboxes.surroundings(pod, sandbox)
        projected = Projected(pod, around, programs.token_key(home.instance))
        await asyncio.to_thread(projected.write)
        renewal = asyncio.create_task(projected.renew())
        try:
            await self._run(around, sandbox.directory / "containers")
        finally:
            renewal.cancel()
        await self._publish_now()
        await self._remove_sandbox()

    async def _run(self, around: Surroundings, records: Path) -> None:
        """Its containers, until all have ended for good."""
        home, pod = self._home, self.pod
        logs = home.instance.pod_logs(self._key.namespace, self._key.name)

        def loop(spec: Mapping[str, Any]) -> ContainerLoop:
            record = records / f"{spec['name']}.json"
            return ContainerLoop(spec, Place(pod, around, record, logs / f"{spec['name']}.log"), self._changed.set)

        init = [loop(spec) for spec in pod["spec"].get("initContainers", ())]
        main = [loop(spec) for spec in pod["spec"]["containers"]]
        self._loops = [*init, *main]
        self._facts = replace(self._facts, addresses=around.addresses)
        self._changed.set()
        await home.gate.admitted(self.uid, lambda why: self._block(Waiting("WaitingForMesh", why)))
        self._block(None)
        if await self._initialise(init):
            await asyncio.gather(*(each.run(self._policy) for each in main))

    async def _initialise(self, init: list[ContainerLoop]) -> bool:
        """Init containers run one after the other; whether all succeeded."""
        for each in init:
            if await each.run("Never" if self._policy == "Never" else "OnFailure") != 0:
                return False
        return True

    async def _remove_sandbox(self) -> None:
        await self._home.gate.released(self.uid)
        await asyncio.to_thread(self._home.sandboxes.remove, self.uid)

    def _block(self, why: Waiting | None) -> None:
        self._facts = replace(self._facts, blocked=why)
        self._changed.set()

    @property
    def _policy(self) -> str:
        policy: str = self.pod["spec"].get("restartPolicy", "Always")
        return policy

    @property
    def _cgroup(self) -> Path:
        return self._home.instance.node(self._home.node.name).pod_cgroup(self.uid)

    def _grace(self) -> float:
        return float(self.pod["metadata"].get("deletionGracePeriodSeconds", _grace(self.pod)))

    async def _publish(self) -> None:
        """Write the status after every change, newest only."""
        backoff = Backoff(0.1, 10.0)
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._publish_now()
                backoff.succeeded()
            except NotFound:
                return
            except (StoreError, OSError) as error:
                log.warning("status of pod %s/%s not written: %s", self._key.namespace, self._key.name, error)
                self._changed.set()
                await asyncio.sleep(backoff.after_failure(random.random()))

    async def _publish_now(self) -> None:
        def edit(pod: dict[str, Any]) -> None:
            if pod["metadata"].get("uid") == self.uid:  # a new pod of this name is not ours to write
                pod["status"] = podstatus.status(pod, self._current_facts(), _now())

        await self._home.store.change_status(self._key, edit)

    def _current_facts(self) -> Facts:
        count = len(self.pod["spec"].get("initContainers", ()))
        facts = tuple(each.facts for each in self._loops)
        return replace(self._facts, init=facts[:count], containers=facts[count:])
