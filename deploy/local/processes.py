"""Processes: started into their namespaces, watched to their end, found again by a process that did not start them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import cgroups, enter
from deploy.local.entry import CannotRun, Entry

EMPTY_GLANCE = 0.01  # seconds between looks at whether a cgroup is empty
UNKNOWN_EXIT = 255  # of a process whose end this node process could not see


@dataclass(frozen=True, slots=True)
class Process:
    """A running process: `birth` (ticks since boot) tells it from a later one with the same id."""

    pid: int
    birth: int
    child: subprocess.Popen[bytes] | None = field(default=None, compare=False)


def start(entry: Entry, output: Path, *, stdin: int = subprocess.DEVNULL) -> Process:
    """Blocks for some milliseconds. Raises CannotRun when the command is not there or cannot be executed."""
    cgroups.create(Path(entry.cgroup))
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as log:
        process = _spawn(entry, stdin, log.fileno())
    return Process(process.pid, _birth(process.pid) or 0, process)


def _spawn(entry: Entry, stdin: int, log: int) -> subprocess.Popen[bytes]:
    reading, writing = os.pipe()
    try:
        process = launch(entry, writing, stdin=stdin, stdout=log, stderr=log, start_new_session=True)
    finally:
        os.close(writing)
    with os.fdopen(reading, "rb") as report:
        failure = report.read().decode()
    if failure:
        process.wait()
        raise CannotRun("StartError", f"command {entry.command[0]!r} cannot be started: {failure}")
    return process


def launch(entry: Entry, report: int, **options: object) -> subprocess.Popen[bytes]:
    """Start `enter.py` with an entry. Options are Popen's; why it failed, if it does, is written to `report`."""
    description = os.memfd_create("entry", os.MFD_CLOEXEC)
    try:
        os.write(description, json.dumps(entry.as_json()).encode())
        os.lseek(description, 0, os.SEEK_SET)
        command = [sys.executable, "-I", "-S", str(Path(enter.__file__)), str(description), str(report)]
        return subprocess.Popen(command, pass_fds=(description, report), **options)  # type: ignore[call-overload,no-any-return]
    finally:
        os.close(description)


def find(pid: int, birth: int) -> Process | None:
    """A process that an earlier node process started, if it still runs."""
    return Process(pid, birth) if _birth(pid) == birth else None


async def ended(process: Process) -> int:
    """Waits for the end. The exit code; 128 + n after signal n; `UNKNOWN_EXIT` where nobody knows."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return _reap(process)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return _reap(process)


def _reap(process: Process) -> int:
    if process.child is None:
        return UNKNOWN_EXIT
    code = process.child.wait()
    return code if code >= 0 else 128 - code


async def stop(cgroup: Path, grace: float) -> None:
    """SIGTERM to all in a cgroup, SIGKILL after `grace` seconds to what is left; returns when all are gone."""
    cgroups.signal_all(cgroup, signal.SIGTERM)
    deadline = asyncio.get_running_loop().time() + grace
    await _empty(cgroup, deadline)
    cgroups.kill(cgroup)
    await _empty(cgroup, math.inf)


async def _empty(cgroup: Path, deadline: float) -> None:
    """Returns when nothing runs in a cgroup any more, or it is `deadline`; the kernel has no call that waits for it."""
    while cgroups.is_populated(cgroup) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(EMPTY_GLANCE)


def _birth(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None when there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])
