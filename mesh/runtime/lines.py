"""Lines to a descriptor from a thread of its own: who logs never waits for a full pipe.

What does not fit into the queue is dropped and counted; the count is written once there is room again.
"""

from __future__ import annotations

import os
import queue
import threading
import time

QUEUE_LINES = 10_000  # as ztunnel's log queue; at 500 bytes a line this is 5 MB
BATCH_LINES = 256  # lines per write
COMPANY = 0.01  # seconds that a line waits for others: waking the thread for each costs more than the line


class LineWriter:
    """Thread-safe. `dropped` counts lines since the start."""

    def __init__(self, descriptor: int, capacity: int = QUEUE_LINES) -> None:
        self._descriptor = descriptor
        self._capacity = capacity
        # Not queue.Queue: its locks in Python cost more than the rest of a line. Threads may overshoot by a line each.
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.dropped = 0
        self._reported = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def write(self, line: str) -> None:
        """`line` without its newline. Never blocks."""
        if self._queue.qsize() < self._capacity:
            self._queue.put(line)
        else:
            self.dropped += 1

    def close(self, timeout: float = 1.0) -> None:
        """What is queued leaves, unless nobody reads for `timeout` seconds."""
        self._queue.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        open_ = True
        while open_:
            lines = [self._queue.get()]
            if lines != [None] and self._queue.qsize() < BATCH_LINES:
                time.sleep(COMPANY)
            while len(lines) < BATCH_LINES and not self._queue.empty():
                lines.append(self._queue.get())
            open_ = None not in lines
            self._write([line for line in lines if line is not None] + self._loss())

    def _loss(self) -> list[str]:
        lost, self._reported = self.dropped - self._reported, self.dropped
        return [f"{lost} log lines were dropped: they were not read fast enough"] if lost else []

    def _write(self, lines: list[str]) -> None:
        data = memoryview("".join(line + "\n" for line in lines).encode(errors="replace"))
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self.dropped += len(lines)  # nobody reads any more; logging must not end the process
