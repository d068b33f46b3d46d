"""Keeps the workers of one waypoint alive: started again when they die, ended together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from types import FrameType

WORKER = "WAYPOINT_WORKER"  # in a worker's environment: its number
RESTART_AFTER = 0.2  # seconds: one that cannot start must not keep a core busy
POLL = 0.2  # seconds
GRACE = 2.0  # seconds that a worker may need to exit beyond its drain deadline

log = logging.getLogger("supervisor")


def supervise(workers: int, drain_deadline: float) -> int:
    """Until SIGTERM or SIGINT. The exit status of the process."""
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, stop)
    running = [_start(number) for number in range(workers)]
    while not stopping:
        time.sleep(POLL)
        for number, process in enumerate(running):
            if process.poll() is not None and not stopping:
                log.error("worker %d ended with status %s: it is started again", number, process.returncode)
                time.sleep(RESTART_AFTER)
                running[number] = _start(number)
    return _end(running, drain_deadline + GRACE)


def _start(number: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, WORKER: str(number)}
    return subprocess.Popen([sys.executable, "-m", "waypoint"], env=environment, start_new_session=True)


def _end(running: list[subprocess.Popen[bytes]], patience: float) -> int:
    for process in running:
        process.terminate()
    deadline = time.monotonic() + patience
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return 0
