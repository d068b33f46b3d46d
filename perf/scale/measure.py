"""Measures one controller on one API server: its start, what it holds, and what a change costs and takes."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from perf.bench.place import cpu_seconds, resident_bytes
from perf.scale import objects
from perf.scale.changes import Change, bursts, changes
from perf.scale.crowd import Crowd, crowd
from perf.scale.objects import Size
from perf.scale.subscribers import Task
from tests.controller.cluster import ClusterController
from tests.store.system import System

_MS = 1000.0
_MIB = 1 << 20
_QUIET_SECONDS = 3.0  # in which nothing happens, to see what that costs
_BURST = 500  # changes as fast as the API server takes them


@dataclass(frozen=True, slots=True)
class Figure:
    """`at` is what it was measured with: "50 ztunnels"."""

    name: str
    at: str
    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure: `count` changes of each kind, with so many ztunnels at once."""

    size: Size
    count: int
    ztunnels: tuple[int, ...]


Tell = Callable[[str], None]


async def measure(system: System, plan: Plan, place: Path, tell: Tell) -> list[Figure]:
    """Of an API server that is filled. Raises Missing, StoreError."""
    found = ClusterController(system, place)
    size = f"{plan.size.services:,} services, {plan.size.pods:,} pods"
    tell("The controller starts")
    began = time.monotonic()
    try:
        await found.start()
        figures = [Figure("start until it serves", size, "s", time.monotonic() - began), *_held(found, "start", size)]
        for number, ztunnels in enumerate(plan.ztunnels):
            last = number == len(plan.ztunnels) - 1
            figures += await _with_ztunnels(found, plan, ztunnels, last, tell)
    finally:
        if found.process is not None:
            await found.stop()
    return figures


def _held(found: ClusterController, name: str, at: str) -> list[Figure]:
    pid = _pid(found)
    memory = Figure(f"{name}: memory", at, "MiB", resident_bytes(pid) / _MIB)
    return [memory, Figure(f"{name}: CPU until then", at, "s", cpu_seconds([pid]))]


async def _with_ztunnels(found: ClusterController, plan: Plan, ztunnels: int, last: bool, tell: Tell) -> list[Figure]:
    at = f"{ztunnels} ztunnel" + ("s" if ztunnels > 1 else "")
    tell(f"{at} connect")
    async with connected(found, ztunnels) as (listeners, began):
        spent = cpu_seconds([_pid(found)])
        full = max(await listeners.until_full(plan.size.resources)) - began
        spent = cpu_seconds([_pid(found)]) - spent
        figures = [
            Figure("whole mesh, until all have it", at, "s", full),
            Figure("whole mesh, CPU per ztunnel", at, "ms", spent / ztunnels * _MS),
            Figure("whole mesh, size", at, "MiB", sum(each.size for each in listeners.heard) / ztunnels / _MIB),
        ]
        kinds = changes(found.system.api, plan.size, plan.count)
        for name, series in kinds.items():
            if name == "pod gone" and not last:
                continue  # nobody brings them back
            tell(f"{at}: {name}")
            figures += [
                replace(each, name=f"{name}: {each.name}", at=at) for each in await _series(found, listeners, series)
            ]
            if name == "pod IP":
                tell(f"{at}: many at once")
                figures += await _burst(found, listeners, plan.size, at)
        figures += await _quiet(found, at)
        figures.append(Figure("memory", at, "MiB", resident_bytes(_pid(found)) / _MIB))
    return figures


@asynccontextmanager
async def connected(found: ClusterController, ztunnels: int) -> AsyncIterator[tuple[Crowd, float]]:
    """And when they began to connect."""
    name = f"ambit-controller.{found.system.namespace}.svc"
    tokens = tuple([found.node_token(objects.node_name(number)) for number in range(ztunnels)])
    began = time.monotonic()
    async with crowd(Task(found.port, name, found.roots().decode(), tokens)) as listeners:
        yield listeners, began


async def _series(found: ClusterController, listeners: Crowd, series: Iterable[Change]) -> list[Figure]:
    """One change after the other, each when all ztunnels know of the one before."""
    latencies: list[float] = []
    answers: list[float] = []
    sent, count = 0, 0
    spent = cpu_seconds([_pid(found)])
    for change in series:
        listeners.forget()
        began = time.monotonic()
        written = asyncio.create_task(_write(found, change))
        latencies += [at - began for at in await listeners.until_all([change.name], change.removes)]
        answers.append(await written - began)
        sent += sum(each.count + len(each.removed) for each in listeners.heard)
        count += 1
    spent = cpu_seconds([_pid(found)]) - spent
    return [
        Figure("from request to ztunnel, p50", "", "ms", percentile(latencies, 0.5) * _MS),
        Figure("from request to ztunnel, p99", "", "ms", percentile(latencies, 0.99) * _MS),
        Figure("from request to the API server's answer, p50", "", "ms", percentile(answers, 0.5) * _MS),
        Figure("CPU per change", "", "ms", spent / count * _MS),
        Figure("resources sent per change and ztunnel", "", "", sent / count / listeners.size),
    ]


async def _write(found: ClusterController, change: Change) -> float:
    """When the API server had answered."""
    await found.system.api.call(change.write)
    return time.monotonic()


async def _burst(found: ClusterController, listeners: Crowd, size: Size, at: str) -> list[Figure]:
    """Changes as fast as the API server takes them, as when a node dies and comes back."""
    behind, spent, count = 0.0, cpu_seconds([_pid(found)]), 0
    for burst in bursts(found.system.api, size, _BURST):
        listeners.forget()
        ends = await asyncio.gather(*(_write(found, change) for change in burst))
        last = max(await listeners.until_all(change.name for change in burst))
        behind, count = max(behind, last - max(ends)), count + len(burst)
    spent = cpu_seconds([_pid(found)]) - spent
    return [
        Figure(f"{_BURST} changes at once: last ztunnel behind last answer", at, "ms", behind * _MS),
        Figure(f"{_BURST} changes at once: CPU per change", at, "ms", spent / count * _MS),
    ]


async def _quiet(found: ClusterController, at: str) -> list[Figure]:
    spent = cpu_seconds([_pid(found)])
    await asyncio.sleep(_QUIET_SECONDS)
    return [Figure("CPU when nothing happens", at, "%", (cpu_seconds([_pid(found)]) - spent) / _QUIET_SECONDS * 100)]


def percentile(values: Sequence[float], part: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(part * 1000) - 1]


def _pid(found: ClusterController) -> int:
    assert found.process is not None
    return found.process.pid
