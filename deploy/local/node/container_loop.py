"""The life of one container: started, probed, watched, started again with growing pauses."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deploy.local import processes
from deploy.local.entry import CannotRun
from deploy.local.node import containers, podstatus, probes
from deploy.local.node.containers import Surroundings
from deploy.local.node.podstatus import Container, Running, Terminated, Waiting
from deploy.local.processes import Process
from mesh.runtime.backoff import Backoff

FIRST_PAUSE = 1.0  # the kubelet waits 10 s; on one machine, someone is looking at it
LONGEST_PAUSE = 300.0  # the kubelet's
STEADY = 600.0  # a container that ran this long starts with short pauses again, as with the kubelet


@dataclass(frozen=True, slots=True)
class Place:
    """What a container's loop needs to know of its pod."""

    pod: Mapping[str, Any]
    around: Surroundings
    record: Path  # where the process is remembered
    log: Path


class ContainerLoop:
    """`facts` is what is true now; `changed` is called after each change of it."""

    def __init__(self, spec: Mapping[str, Any], place: Place, changed: Callable[[], None]) -> None:
        self._spec, self._place, self._changed = spec, place, changed
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, jitter=0.0)
        self.facts = Container(spec["name"], spec.get("image", ""), passes_probe="readinessProbe" not in spec)

    async def run(self, policy: str) -> int:
        """Until it has ended for good under that restart policy; its exit code. Cancel it to end the watching."""
        known = self._recall()
        while True:
            try:
                ended = known if isinstance(known, Terminated) else await self._watch(known or await self._start())
            except CannotRun as error:
                await self._pause(Waiting(error.reason, str(error)))
                continue
            known = None
            if not podstatus.restarts(policy, ended.exit_code):
                self._is(state=ended)
                return ended.exit_code
            self._is(last=ended, restarts=self.facts.restarts + 1)
            await self._pause(Waiting("CrashLoopBackOff", f"it ended with exit code {ended.exit_code}"))

    def _is(self, **changes: Any) -> None:
        self.facts = replace(self.facts, **changes)
        self._changed()

    async def _pause(self, why: Waiting) -> None:
        self._is(state=why)
        await asyncio.sleep(self._backoff.after_failure(random.random()))

    async def _start(self) -> Process:
        entry = containers.entry(self._place.pod, self._spec, self._place.around)
        process = await asyncio.to_thread(processes.start, entry, self._place.log)
        self._is(state=Running(_now()), id=_id(process))
        self._remember(process, None)
        return process

    async def _watch(self, process: Process) -> Terminated:
        """Waits for the end of the process, probing it meanwhile."""
        started, began = self._started_at(), asyncio.get_running_loop().time()
        probing = asyncio.create_task(self._probe_all())
        try:
            code = await processes.ended(process)
        finally:
            probing.cancel()
        if asyncio.get_running_loop().time() - began > STEADY:
            self._backoff.succeeded()
        if "readinessProbe" in self._spec:
            self.facts = replace(self.facts, passes_probe=False)
        self._remember(process, code)
        return _terminated(code, started, _now())

    async def _probe_all(self) -> None:
        """The others begin once the startup probe has passed."""
        startup = self._spec.get("startupProbe")
        if startup and not await probes.started(startup, lambda: self._check(startup)):
            self._alive(False)
            return
        await asyncio.gather(self._probe("readinessProbe"), self._probe("livenessProbe"))

    async def _probe(self, kind: str) -> None:
        probe = self._spec.get(kind)
        if not probe:
            return
        told = self._ready if kind == "readinessProbe" else self._alive
        await probes.run(probe, lambda: self._check(probe), initially=kind != "readinessProbe", told=told)

    def _ready(self, passes: bool) -> None:
        if passes != self.facts.passes_probe:
            self._is(passes_probe=passes)

    def _alive(self, passes: bool) -> None:
        if not passes:
            asyncio.create_task(processes.stop(self._cgroup, _grace(self._place.pod)))  # noqa: RUF006 - ends by itself

    async def _check(self, probe: Mapping[str, Any]) -> bool:
        around = self._place.around
        if "exec" in probe:
            return await self._command(probe["exec"].get("command", ()))
        http = probe.get("httpGet")
        port = probes.port_number(self._spec, (http or probe.get("tcpSocket") or {}).get("port", ""))
        if http:
            return await probes.answers(around.netns, around.addresses.v4, port, http)
        return await probes.connects(around.netns, around.addresses.v4, port)

    async def _command(self, command: list[str]) -> bool:
        entry = containers.entry(self._place.pod, self._spec, self._place.around)
        process = await asyncio.to_thread(processes.start, replace(entry, command=list(command)), Path("/dev/null"))
        return await processes.ended(process) == 0

    @property
    def _cgroup(self) -> Path:
        name: str = self._spec["name"]
        return self._place.around.cgroup / name

    def _started_at(self) -> str:
        return self.facts.state.started_at if isinstance(self.facts.state, Running) else _now()

    def _remember(self, process: Process, code: int | None) -> None:
        """For a node process to come: so it neither starts a container twice nor runs again what has ended."""
        record = {"pid": process.pid, "birth": process.birth, "started": self._started_at(), "code": code}
        with suppress(OSError):  # the pod's sandbox has gone meanwhile
            self._place.record.parent.mkdir(parents=True, exist_ok=True)
            self._place.record.write_text(json.dumps(record | {"restarts": self.facts.restarts}))

    def _recall(self) -> Process | Terminated | None:
        """What an earlier node process started: it runs, or it has ended; None when nothing was started."""
        try:
            record = json.loads(self._place.record.read_text())
            process = Process(record["pid"], record["birth"])
            started, code = record["started"], record["code"]
            self._is(state=Running(started), restarts=record["restarts"], id=_id(process))
        except (OSError, ValueError, KeyError):
            return None
        if code is None and processes.find(process.pid, process.birth) is not None:
            return process
        return _terminated(processes.UNKNOWN_EXIT if code is None else code, started, _now())


def _terminated(code: int, started: str, finished: str) -> Terminated:
    return Terminated(code, "Completed" if code == 0 else "Error", started, finished)


def _id(process: Process) -> str:
    """As Kubernetes writes it: a scheme and what is unique; a process id alone comes round again."""
    return f"process://{process.pid}-{process.birth}"


def _grace(pod: Mapping[str, Any]) -> float:
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
