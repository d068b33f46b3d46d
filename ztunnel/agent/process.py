"""One worker process as the agent sees it, and those that an earlier agent of this node left behind."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ztunnel.agent.snapshot import replace_file

log = logging.getLogger("workers")

SECRET_VARIABLES = ("AUTH_TOKEN",)  # may be the token itself: workers have no use for it


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A pid, and when that process began, since pids are used again (proc(5): starttime, in ticks)."""

    pid: int
    started: int


def spawn(environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A worker and the agent's end of its socket. In a session of its own: a signal to the agent's terminal is not for
    a worker, which outlives its agent. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs:
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "ztunnel.worker", "--feed", str(theirs.fileno())],
                env={name: value for name, value in environment.items() if name not in SECRET_VARIABLES},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
    return process, ours


def identify(pid: int) -> ProcessId | None:
    """None when there is no such process, or only what is left of it."""
    try:
        # The name, in parentheses, may hold anything: what follows the last one is fields 3 and on.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else ProcessId(pid, int(fields[19]))


@dataclass(frozen=True, slots=True)
class _Content:
    agent: ProcessId
    workers: list[ProcessId]


class Roster:
    """The worker processes of this node in a file, so that a successor finds them."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        left = self._load()
        # Workers whose agent lives are led by it: it is about to end, and then they do.
        self._orphans = frozenset(left.workers if left and identify(left.agent.pid) != left.agent else ())

    @property
    def orphans(self) -> frozenset[ProcessId]:
        """Workers of an earlier agent that still run."""
        self._orphans = frozenset(one for one in self._orphans if identify(one.pid) == one)
        return self._orphans

    def write(self, mine: Iterable[ProcessId]) -> None:
        me = identify(os.getpid())
        if self._path is None or me is None:
            return
        try:
            replace_file(self._path, msgspec.json.encode(_Content(me, [*self.orphans, *mine])))
        except OSError as error:
            log.error("cannot write %s: %s", self._path, error.strerror)

    def retire_orphans(self) -> None:
        """They are replaced: let them drain and end."""
        for orphan in self.orphans:
            log.info("worker %d of an earlier agent is replaced: it drains now", orphan.pid)
            _terminate(orphan)
        self._orphans = frozenset()

    def _load(self) -> _Content | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Content) if self._path else None
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("ignored %s: %s", self._path, error)
            return None


def _terminate(process: ProcessId) -> None:
    """Through a pidfd: between looking and sending, the pid cannot become another process's."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if identify(process.pid) == process:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
