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
        self._queue: queue.Queue[str | None] = queue.Queue(capacity)
        self.dropped = 0
        self._reported = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """`line` without its newline. Never blocks."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout: float = 1.0) -> None:
        """What is queued leaves, unless nobody reads for `timeout` seconds."""
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            return
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
