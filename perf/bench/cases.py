"""What is measured: cases, the systems that each is measured on, and the metrics that come of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Name(StrEnum):
    """A system under test: the value of --system."""

    DIRECT = "direct"  # no mesh: the eBPF programs do not see these processes
    AMBIT = "ambit"
    ENVOY = "envoy"
    HAPROXY = "haproxy"
    UNENROLLED = "unenrolled"  # pods on the nodes of the mesh that are not in it


class Mode(StrEnum):
    """How a case is measured; the first four are modes of the load program."""

    ROUND_TRIPS = "rr"
    UP = "up"
    DOWN = "down"
    CONNECTIONS = "crr"
    IDLE = "idle"
    LABEL = "label"
    HTTP1 = "http1"  # these go through a waypoint: Ambit's, or Envoy in its place
    HTTP1_HALF = "http1-half"
    HTTP2 = "http2"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a case. `scale` takes it from the load program's unit to `unit`."""

    name: str
    unit: str
    scale: float = 1.0
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """`arguments` go to the load program. A case that is not `interleaved` comes after all that are: it starts proxies
    anew. `repeats` makes shorter slices that alternate more often, where a small difference is looked for."""

    name: str
    title: str
    mode: Mode
    arguments: tuple[int, ...]
    systems: tuple[Name, ...]
    interleaved: bool = True
    repeats: int = 1
    most_runs: int = 100


PROXIES = (Name.AMBIT, Name.ENVOY, Name.HAPROXY)
ALL = (Name.DIRECT, *PROXIES)
BESIDE = (Name.DIRECT, Name.UNENROLLED)
WAYPOINTS = (Name.AMBIT, Name.ENVOY)
L7 = frozenset({Mode.HTTP1, Mode.HTTP1_HALF, Mode.HTTP2, Mode.GRPC})
IDLE_CONNECTIONS = 5000
LABELS = 20  # per run

CASES = (
    Case("rr-128-x1", "128 B round trip, 1 connection", Mode.ROUND_TRIPS, (1, 128), ALL),
    Case("rr-128-x32", "128 B round trip, 32 connections", Mode.ROUND_TRIPS, (32, 128), ALL),
    Case("rr-1k-x1", "1 KB round trip, 1 connection", Mode.ROUND_TRIPS, (1, 1024), ALL),
    Case("rr-1k-x32", "1 KB round trip, 32 connections", Mode.ROUND_TRIPS, (32, 1024), ALL),
    Case("down-x1", "server to client, 1 stream", Mode.DOWN, (1,), ALL),
    Case("down-x16", "server to client, 16 streams", Mode.DOWN, (16,), ALL),
    Case("up-x1", "client to server, 1 stream", Mode.UP, (1,), ALL),
    Case("up-x16", "client to server, 16 streams", Mode.UP, (16,), ALL),
    Case("crr-x4", "connect, 128 B, close; 4 at once", Mode.CONNECTIONS, (4, 128), ALL),
    Case("beside-rr", "un-enrolled pods: 128 B round trip", Mode.ROUND_TRIPS, (1, 128), BESIDE, repeats=4),
    Case("beside-crr", "un-enrolled pods: connect, 128 B, close", Mode.CONNECTIONS, (4, 128), BESIDE, repeats=4),
    Case("waypoint-http1", "HTTP/1.1 through a waypoint: 1 KB, 16 connections", Mode.HTTP1, (16,), WAYPOINTS),
    Case("waypoint-half", "the same at half of Ambit's rate", Mode.HTTP1_HALF, (16,), WAYPOINTS),
    Case("waypoint-http2", "HTTP/2 through a waypoint: 1 KB, 4 connections, 8 streams", Mode.HTTP2, (4, 8), WAYPOINTS),
    Case("waypoint-grpc", "gRPC unary through a waypoint: 4 connections, 8 calls", Mode.GRPC, (4, 8), WAYPOINTS),
    Case(
        "idle",
        f"memory, {IDLE_CONNECTIONS} idle connections",
        Mode.IDLE,
        (IDLE_CONNECTIONS,),
        PROXIES,
        False,
        most_runs=3,
    ),
    Case("label", "label to captured", Mode.LABEL, (LABELS,), (Name.AMBIT,), False),
)

_LATENCY = tuple(Metric(name, "us") for name in ("p50", "p99", "p999"))
_RATE = Metric("rate", "/s", more_is_better=True)
_CPU = Metric("cpu", "us", 1e6)  # of both sides' proxies, per round trip or connection
_REQUESTS = (
    _RATE,
    Metric("per-core", "/s", more_is_better=True),  # requests per second of the waypoint's own CPU time
    Metric("p50", "us"),
    Metric("p99", "us"),
)
_BULK = (Metric("rate", "GB/s", 1e-9, more_is_better=True), Metric("cpu", "s/GB", 1e9))

METRICS = {
    Mode.ROUND_TRIPS: (*_LATENCY, _RATE, _CPU),
    Mode.CONNECTIONS: (_RATE, *_LATENCY, _CPU),
    Mode.UP: _BULK,
    Mode.HTTP1: _REQUESTS,
    Mode.HTTP1_HALF: _REQUESTS,
    Mode.HTTP2: _REQUESTS,
    Mode.GRPC: _REQUESTS,
    Mode.DOWN: _BULK,
    Mode.IDLE: (
        Metric("client", "kB", 1e-3),  # per connection: what the proxies of this side have grown by
        Metric("server", "kB", 1e-3),
        Metric("base-worker", "MB", 1e-6),  # the process that carries the bytes; mean of both sides
        Metric("base", "MB", 1e-6),  # all processes of a side
    ),
    Mode.LABEL: (Metric("p50", "ms", 1e3), Metric("p99", "ms", 1e3)),
}


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement of one system."""

    run: int
    case: Case
    system: Name


def select(cases: Sequence[str], systems: Sequence[Name]) -> tuple[Case, ...]:
    """Cases whose names begin with one of `cases` (all when empty), cut to `systems`. Raises ValueError: a name fits
    none."""
    for prefix in cases:
        if not any(case.name.startswith(prefix) for case in CASES):
            raise ValueError(f"there is no case {prefix!r}; there are {', '.join(case.name for case in CASES)}")
    chosen = [case for case in CASES if not cases or any(case.name.startswith(prefix) for prefix in cases)]
    cut = [_cut(case, systems) for case in chosen]
    if not any(case.systems for case in cut):
        raise ValueError(f"no chosen case is measured on {', '.join(systems)}")
    return tuple(case for case in cut if case.systems)


def _cut(case: Case, systems: Sequence[Name]) -> Case:
    kept = tuple(system for system in case.systems if not systems or system in systems)
    values = (case.name, case.title, case.mode, case.arguments, kept, case.interleaved, case.repeats, case.most_runs)
    return Case(*values)


def schedule(cases: Sequence[Case], runs: int) -> list[Job]:
    """Systems alternate within each case, and who begins changes with each run, so that what the machine does
    meanwhile falls on all alike."""
    together = [case for case in cases if case.interleaved]
    alone = [case for case in cases if not case.interleaved]
    jobs = [job for run in range(runs) for case in together for job in _round(run, case)]
    return jobs + [job for case in alone for run in range(min(runs, case.most_runs)) for job in _round(run, case)]


def _round(run: int, case: Case) -> list[Job]:
    first = run % len(case.systems)
    order = case.systems[first:] + case.systems[:first]
    return [Job(run, case, system) for _ in range(case.repeats) for system in order]
