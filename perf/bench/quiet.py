"""How much of the machine others have used meanwhile: a benchmark beside a compiler measures the compiler as well."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
TASKS = (1, 2, 3)  # user, nice, system of the first line of /proc/stat; interrupts are nobody's


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds since some beginning: on the clock, and of CPU time of all processes and of ours."""

    clock: float
    everyone: float
    ours: float


def look(cgroup: Path) -> Moment:
    """Ours are this process and all that has run in `cgroup`."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    everyone = sum(int(fields[index]) for index in TASKS) / TICKS
    return Moment(time.monotonic(), everyone, _of_cgroup(cgroup) + _of_this_process())


def cores_of_others(before: Moment, after: Moment) -> float:
    """On average, from one moment to the other."""
    others = (after.everyone - before.everyone) - (after.ours - before.ours)
    return max(0.0, others / (after.clock - before.clock))


def _of_cgroup(cgroup: Path) -> float:
    fields = dict(line.split() for line in (cgroup / "cpu.stat").read_text().splitlines())
    return int(fields["usage_usec"]) / 1e6


def _of_this_process() -> float:
    # Its children run in the cgroup: they are counted there.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
