"""Cgroups as files: made, filled, killed, removed. The kernel knows every process in one, so no list can be stale."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

LONGEST_DEATH = 10.0  # seconds until a killed process must be gone: only one stuck in the kernel takes longer


def create(cgroup: Path) -> None:
    cgroup.mkdir(parents=True, exist_ok=True)


def enter(cgroup: Path, pid: int = 0) -> None:
    """Move a process (0: this one) into a cgroup."""
    (cgroup / "cgroup.procs").write_text(str(pid))


def processes(cgroup: Path) -> frozenset[int]:
    """All processes in a cgroup and below it."""
    pids: set[int] = set()
    for directory, _, _ in os.walk(cgroup):
        with suppress(OSError):
            pids.update(map(int, Path(directory, "cgroup.procs").read_text().split()))
    return frozenset(pids)


def is_populated(cgroup: Path) -> bool:
    try:
        return "populated 1" in (cgroup / "cgroup.events").read_text()
    except OSError:
        return False


def signal_all(cgroup: Path, number: int) -> None:
    """Send a signal to every process in a cgroup and below it."""
    for pid in processes(cgroup):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def kill(cgroup: Path) -> None:
    """SIGKILL everything in a cgroup and below it, in one step that no fork escapes. Does not wait."""
    with suppress(FileNotFoundError):
        (cgroup / "cgroup.kill").write_text("1")


def remove(cgroup: Path) -> None:
    """Kill what runs in it, wait for its end, remove it and all below. Raises TimeoutError."""
    if not cgroup.exists():
        return
    kill(cgroup)
    deadline = time.monotonic() + LONGEST_DEATH
    while is_populated(cgroup):
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes in {cgroup} do not end: {sorted(processes(cgroup))}")
        time.sleep(0.01)
    for directory, _, _ in os.walk(cgroup, topdown=False):
        with suppress(FileNotFoundError):
            os.rmdir(directory)
