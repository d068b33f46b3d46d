"""Where a process of a measurement runs, and what processes have used: CPU time and memory, from /proc."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import cgroups, processes
from deploy.local.entry import CannotRun, Entry
from deploy.local.errors import LocalError
from deploy.local.namespaces import inside

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Place:
    """A pod's network namespace, and a cgroup: it decides whether the node's eBPF programs see what is done here."""

    netns: Path
    cgroup: Path
    ip: str

    def start(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
        """Options are Popen's. The process dies with this one. Raises CannotRun."""
        cgroups.create(self.cgroup)
        entry = Entry([str(word) for word in command], dict(os.environ), "/", str(self.cgroup), str(self.netns))
        reading, writing = os.pipe()
        try:
            process = processes.launch(entry, writing, text=True, preexec_fn=_die_with_parent, **options)
        finally:
            os.close(writing)
        with os.fdopen(reading) as report:
            failure = report.read()
        if failure:
            process.wait()
            raise CannotRun("StartError", f"{command[0]} cannot be started: {failure}")
        return process  # type: ignore[return-value]

    def set_sysctl(self, name: str, value: str) -> None:
        inside(self.netns, lambda: Path("/proc/sys", name).write_text(value))


def output(place: Place, words: Sequence[str], patience: float) -> str:
    """What a load program has written. Raises LocalError: it hangs, or says why it failed."""
    process = place.start(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        said, complaint = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        raise LocalError("the load program hangs: a connection gets no answer") from None
    finally:
        stop(process)
    if process.returncode:
        raise LocalError(complaint.strip() or f"the load program ended with {process.returncode}")
    return said


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def cpu_seconds(pids: Iterable[int]) -> float:
    """Time on a CPU, of all threads: the scheduler's count, in nanoseconds."""
    spent = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Rss")


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
