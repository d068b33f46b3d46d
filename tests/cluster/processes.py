"""Daemons of the cluster: started in a cgroup and in namespaces, remembered by process id and start time.

A record also holds the command, so that a daemon can be stopped and started again from another process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from tests.cluster import cgroups
from tests.cluster.plan import Cluster

T = TypeVar("T")
PATIENCE = 400  # seconds for what takes one to ten: only a hang is a failure, also on a machine that others keep busy

# Takes itself into the groups before it becomes the daemon, so that no process is ever outside of what `down` kills.
JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; exec "$@"'


@dataclass(frozen=True)
class Record:
    """A daemon; `pid` and `started` (proc_pid_stat(5), field 22) together name a process for good."""

    name: str
    group: str
    command: tuple[str, ...]
    forks: bool
    pid: int = 0
    started: int = 0


def joined(group: str, command: tuple[str, ...]) -> list[str]:
    """`command`, run inside the cgroup."""
    return ["/bin/sh", "-c", JOIN, "sh", *map(str, cgroups.members(group)), "--", *command]


def start(cluster: Cluster, record: Record) -> Record:
    """Start and remember. When the command forks (into a process namespace), its child is the daemon."""
    log = cluster.state / "log" / f"{record.name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            joined(record.group, record.command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )
    pid = wait(f"{record.name} forks", lambda: _child(process, log)) if record.forks else process.pid
    running = Record(record.name, record.group, record.command, record.forks, pid, start_time(pid) or 0)
    _file(cluster, record.name).parent.mkdir(exist_ok=True)
    _file(cluster, record.name).write_text(json.dumps(asdict(running)))
    return running


def _child(process: subprocess.Popen[bytes], log: Path) -> int:
    if process.poll() is not None:
        raise ChildProcessError(f"ended with {process.returncode} at once, see {log}")
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])


def _file(cluster: Cluster, name: str) -> Path:
    return cluster.state / "processes" / f"{name}.json"


def load(cluster: Cluster, name: str) -> Record:
    """Raises FileNotFoundError when no such daemon was ever started."""
    values = json.loads(_file(cluster, name).read_text())
    return Record(**(values | {"command": tuple(values["command"])}))


def names(cluster: Cluster) -> list[str]:
    return sorted(path.stem for path in (cluster.state / "processes").glob("*.json"))


def alive(record: Record) -> bool:
    return record.started != 0 and start_time(record.pid) == record.started


def start_time(pid: int) -> int | None:
    """None when there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def stop(record: Record, number: signal.Signals = signal.SIGTERM, patience: float = 5) -> None:
    """End it; SIGKILL when it does not within `patience` seconds (an API server would wait a minute for watches)."""
    for attempt in (number, signal.SIGKILL):
        if alive(record):
            _signal(record, attempt)
        deadline = time.monotonic() + patience
        while alive(record) and time.monotonic() < deadline:
            time.sleep(0.05)
    if alive(record):
        raise TimeoutError(f"{record.name} (process {record.pid}) does not end")


def _signal(record: Record, number: signal.Signals) -> None:
    try:
        os.kill(record.pid, number)
    except ProcessLookupError:
        pass


def wait(what: str, condition: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """The first true value of `condition`, which may fail with OSError, LookupError or a command's failure meanwhile.

    Raises TimeoutError with `what` and the last failure.
    """
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            value = condition()
        except ChildProcessError:
            raise
        except (OSError, LookupError, subprocess.CalledProcessError) as error:
            value, last = None, f" ({error})"
        if value:
            return value
        time.sleep(0.1)
    raise TimeoutError(f"{what}: not so after {seconds:.0f} s{last}")
