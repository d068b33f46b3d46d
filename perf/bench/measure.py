"""One measurement: run the load, and see what the proxies have spent meanwhile."""

from __future__ import annotations

import json
import math
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from deploy.local.errors import LocalError
from ebpf.netns import netns_cookie
from ebpf.node import Capture
from mesh.model import ports
from mesh.model.enrolment import AMBIENT
from perf.bench.cases import METRICS, Case, Mode
from perf.bench.place import cpu_seconds, output, resident_bytes, stop
from perf.bench.systems import System
from perf.bench.testbed import CLIENT_NODE, LABELLED, LOAD, PATIENCE, Testbed, until

IDLE_PATIENCE = 120.0  # thousands of handshakes, one after the other
SHORTEST = 0.1  # seconds: what it takes to know that a path works
STARTED = 2.0  # seconds until a process that has just started has given back what only its start needed
SETTLE = 0.3  # seconds until a process that was just given work has done it

Figures = Mapping[str, float]


def measure(bed: Testbed, system: System, case: Case, seconds: float) -> Figures:
    """Figures by metric, in seconds, bytes or the load program's microseconds. Raises LocalError: it did not work."""
    if case.mode is Mode.IDLE:
        return _idle(system, case.arguments[0])
    if case.mode is Mode.LABEL:
        return _label(bed, system, case.arguments[0])
    return _load(system, case, seconds / math.sqrt(case.repeats))


def _load(system: System, case: Case, seconds: float) -> Figures:
    proxies = system.proxies()
    before = cpu_seconds(proxies)
    said = _run(system, case.mode, *case.arguments, seconds)
    spent = cpu_seconds(proxies) - before
    if said["errors"] or not said["rate"]:
        raise LocalError(f"{said['errors']:.0f} connections failed, {said['total']:.0f} round trips or bytes were done")
    figures = {metric.name: said[metric.name] for metric in METRICS[case.mode] if metric.name in said}
    return {**figures, "cpu": spent / said["total"]} if proxies else figures


def _run(system: System, mode: str, *arguments: float) -> dict[str, float]:
    words = [str(LOAD), mode, system.host, str(system.port), *map(str, arguments)]
    said: dict[str, float] = json.loads(output(system.client, words, arguments[-1] * 2 + PATIENCE))
    return said


def _idle(system: System, connections: int) -> Figures:
    """On proxies that have just started: memory that was used before is not free, it only looks so."""
    system.restart()
    _await_path(system)
    time.sleep(STARTED)
    _await_path(system)  # what a connection needs is in memory again
    base = _resident(system)
    words = [str(LOAD), "idle", system.host, str(system.port), str(connections)]
    process = system.client.start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE)
    try:
        _read_line(process, "thousands of connections")
        time.sleep(SETTLE)
        grown = _resident(system)
    finally:
        stop(process)
    sides = len(grown)
    per_side = [(after[0] - before[0]) / connections for before, after in zip(base, grown, strict=True)]
    return {
        "client": per_side[0],
        "server": per_side[1],
        "base": sum(whole for whole, _ in base) / sides,
        "base-worker": sum(worker for _, worker in base) / sides,
    }


def _resident(system: System) -> list[tuple[int, int]]:
    """Of the client's and the server's side: bytes of all processes, and of the one that carries the bytes."""
    return [_side(side()) for side in (system.client_side, system.server_side)]


def _side(pids: frozenset[int]) -> tuple[int, int]:
    sizes = {pid: resident_bytes(pid) for pid in pids}
    workers = [pid for pid in pids if b"ztunnel.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return sum(sizes.values()), sum(sizes[pid] for pid in workers or pids)


def _await_path(system: System) -> None:
    def works() -> bool:
        try:
            return not _run(system, Mode.ROUND_TRIPS, 1, 1, SHORTEST)["errors"]
        except LocalError:
            return False

    until(works, f"the path through {system.name}")


def _label(bed: Testbed, system: System, labels: int) -> Figures:
    """From before the label is written until a connection that the kernel has captured was answered by a pod of the
    mesh. The pod that dials is labelled by its namespace, as users do it."""
    times = sorted(_label_once(bed, system) for _ in range(labels))
    return {"p50": times[len(times) // 2], "p99": times[math.ceil(0.99 * len(times)) - 1]}


def _label_once(bed: Testbed, system: System) -> float:
    words = [str(LOAD), "capture", system.host, str(system.port), str(ports.OUTBOUND)]
    process = bed.labelled.start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        _read_line(process, "the start of the load program")
        began = time.monotonic()
        bed.change_label(LABELLED, AMBIENT)
        captured = json.loads(_read_line(process, "the first captured connection"))["captured_at"]
    finally:
        stop(process)
        bed.change_label(LABELLED, None)
    cookie = netns_cookie(bed.labelled.netns)
    with closing(Capture.open(bed.instance.node(CLIENT_NODE).pins)) as capture:
        until(lambda: cookie not in capture.enrolled(), "the pod that has left the mesh")
    return float(captured - began)


def _read_line(process: subprocess.Popen[str], what: str) -> str:
    """Raises LocalError."""
    alarm = threading.Timer(IDLE_PATIENCE, process.kill)
    alarm.start()
    try:
        line = process.stdout.readline() if process.stdout else ""
    finally:
        alarm.cancel()
    if not line:
        complaint = process.stderr.read().strip() if process.stderr else ""
        raise LocalError(f"waiting for {what}: {complaint or 'the load program has ended'}")
    return line
