"""What a soak has shown: whether memory is flat under load, and whether all is given back after it. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MIB = 1 << 20
SETTLED = 1 / 3  # of the time: until then buffers, caches and the allocator find their sizes
# What the trend may add up to over the rest of the time. A used tunnel holds about 1 MiB of buffers in OpenSSL that
# come and go with bulk, and Python takes memory from the kernel by the MiB; so less than this is no trend. One object
# (64 bytes) forgotten per connection is 4 MiB after 65,000 connections: some minutes of half load.
MEMORY_TOLERANCE = 4 * MIB

Held = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """At `at` seconds since the load began: resident bytes and open files by process."""

    at: float
    memory: Held
    files: Held


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    subject: str
    before: str
    highest: str
    after: str
    trend: str
    complaint: str = ""  # "" is good


def growth(points: Sequence[tuple[float, float]]) -> float:
    """By how much the straight line that fits best rises over the points' time."""
    if len(points) < 2:
        return 0.0
    slope = statistics.linear_regression([at for at, _ in points], [value for _, value in points]).slope
    return slope * (points[-1][0] - points[0][0])


def memory(samples: Sequence[Sample], before: Held, after: Held) -> list[Finding]:
    """One finding per process; `before` and `after` are what it held without load."""
    return [_memory_of(name, samples, before, after) for name in before]


def _memory_of(name: str, samples: Sequence[Sample], before: Held, after: Held) -> Finding:
    present = [(sample.at, sample.memory[name]) for sample in samples if name in sample.memory]
    settled = [point for point in present if point[0] >= SETTLED * samples[-1].at]
    rise = growth(settled)
    complaint = f"rises by more than {MEMORY_TOLERANCE / MIB:g} MiB" if rise > MEMORY_TOLERANCE else ""
    if len(present) < len(samples) or name not in after:
        complaint = "the process was replaced"
    highest = max((value for _, value in present), default=0)
    trend = f"{rise / MIB:+.2f} MiB"
    return Finding(f"{name}: memory", mib(before[name]), mib(highest), mib(after.get(name, 0)), trend, complaint)


def left_over(before: Held, highest: Held, after: Held) -> list[Finding]:
    """What is held without load must not be more after it than before. Things that never were are left out."""
    return [
        Finding(
            name,
            str(before.get(name, 0)),
            str(highest.get(name, "-")),
            str(left),
            "",
            f"{left - before.get(name, 0)} left behind" if left > before.get(name, 0) else "",
        )
        for name, left in after.items()
        if left or before.get(name) or highest.get(name)
    ]


def highest(samples: Sequence[Sample], queues: Sequence[Held]) -> Held:
    """The most of everything that was counted meanwhile; files are named as in what is left over."""
    most: dict[str, int] = {}
    for held in [*queues, *({f"{name}: files": count for name, count in one.files.items()} for one in samples)]:
        for name, count in held.items():
            most[name] = max(most.get(name, 0), count)
    return most


def mib(size: float) -> str:
    return f"{size / MIB:.1f} MiB"
