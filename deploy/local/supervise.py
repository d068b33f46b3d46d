"""Keeps a process running: started again when it ends, at once at first, then with growing pauses."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy.local import processes
from deploy.local.entry import CannotRun, Entry
from deploy.local.processes import Process
from mesh.runtime.backoff import Backoff

log = logging.getLogger("supervisor")

FIRST_PAUSE = 0.1  # seconds: a ztunnel that died serves again before anybody has given up
LONGEST_PAUSE = 15.0
STEADY = 30.0  # one that ran this long and then died gets the first pause again
LARGEST_LOG = 10 << 20  # bytes, as the kubelet's containerLogMaxSize; then the older half goes
GRACE = 10.0  # seconds from SIGTERM to SIGKILL


@dataclass(frozen=True, slots=True)
class Program:
    """A part of the mesh: what to run, where, and where its output goes."""

    name: str
    entry: Entry
    log: Path
    record: Path | None = None  # where its process is remembered, to be found after a crash of who supervises it


@dataclass(slots=True)
class Child:
    """A supervised program and how it fares."""

    program: Program
    pid: int = 0
    starts: int = 0
    last_end: str = ""
    changed: Callable[[], None] = field(default=lambda: None)

    async def run(self) -> None:
        """Until cancelled; then the process gets SIGTERM, and SIGKILL if it does not end."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self.last_end = await self._once()
            except (OSError, CannotRun) as error:
                self.last_end = f"it cannot be started: {error}"
            if loop.time() - began > STEADY:
                backoff.succeeded()
            log.warning("%s: %s; it is started again", self.program.name, self.last_end)
            self.changed()
            await asyncio.sleep(backoff.after_failure(random.random()))

    async def _once(self) -> str:
        program = self.program
        bound_log(program.log)
        process = _found(program)
        if process is None:
            process = await asyncio.to_thread(_start, program)
        self.pid, self.starts = process.pid, self.starts + 1
        self.changed()
        try:
            code = await processes.ended(process)
        except asyncio.CancelledError:
            await _end(process)
            raise
        finally:
            self.pid = 0
        return f"ended by {signal.Signals(code - 128).name}" if code > 128 else f"ended with exit code {code}"


def _start(program: Program) -> Process:
    process = processes.start(program.entry, program.log)
    if program.record is not None:
        program.record.write_text(json.dumps([process.pid, process.birth]))
    return process


def _found(program: Program) -> Process | None:
    """The one that runs already, started by a supervisor that has died since."""
    if program.record is None:
        return None
    try:
        return processes.find(*json.loads(program.record.read_text()))
    except (OSError, ValueError, TypeError):
        return None


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(GRACE):
            await processes.ended(process)
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def write_fares(path: Path, children: Iterable[Child]) -> None:
    """How children fare, as JSON by name, for `read_fares`."""
    fares = {each.program.name: {"pid": each.pid, "starts": each.starts, "lastEnd": each.last_end} for each in children}
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(fares))
    temporary.rename(path)


def read_fares(path: Path) -> dict[str, dict[str, Any]]:
    """By name: process id (0: not running), how often it was started, how it last ended. Empty when nobody wrote."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def bound_log(path: Path, largest: int = LARGEST_LOG) -> None:
    """Cut a log that has grown too large to its younger half. Its writer appends, so it goes on behind it."""
    with suppress(FileNotFoundError), path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        if size > largest:
            file.seek(size - largest // 2)
            file.readline()
            kept = file.read()
            file.seek(0)
            file.write(kept)
            file.truncate()
