"""One measurement of requests through a waypoint; of CPU time only the waypoint's own counts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from perf.bench import http_load
from perf.bench.cases import Case, Mode
from perf.bench.place import cpu_seconds, output
from perf.bench.systems import System
from perf.bench.waypoints import GRPC, call_file

PATIENCE = 60.0  # seconds: a measurement takes a few
Figures = Mapping[str, float]


def measure(system: System, case: Case, seconds: float, files: Path, half_rate: float) -> Figures:
    """`half_rate`: requests per second of HTTP1_HALF, on all connections. Raises LocalError."""
    spent, began = cpu_seconds(system.proxies()), time.monotonic()
    figures = _load(system, case, seconds, files, half_rate)
    cores = (cpu_seconds(system.proxies()) - spent) / (time.monotonic() - began)
    return {**figures, "per-core": figures["rate"] / cores if cores else 0.0}


def _load(system: System, case: Case, seconds: float, files: Path, half_rate: float) -> Figures:
    url, log = f"http://{system.host}:{system.port}/", files / "requests.log"
    connections, streams = (*case.arguments, 1)[:2]
    if case.mode is Mode.HTTP1:
        return http_load.read_wrk(output(system.client, http_load.wrk(url, connections, seconds), PATIENCE))
    more: tuple[str, ...] = ()
    if case.mode is Mode.HTTP1_HALF:
        more = ("--h1", f"--rps={max(1, round(half_rate / connections))}")
    if case.mode is Mode.GRPC:
        url = f"http://{system.host}:{GRPC}{http_load.GRPC_PATH}"
        more = (f"--data={call_file(files)}", *(f"--header={each}" for each in http_load.GRPC_HEADERS))
    words = http_load.h2load(url, connections, streams, seconds, log, *more)
    return http_load.read_h2load(output(system.client, words, PATIENCE), log)
