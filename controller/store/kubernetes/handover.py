"""From threads that read to the event loop, never more than a bounded number of batches ahead of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from controller.store.interface import Event

# A page of a list each: some megabytes of objects wait at most, and the reader stops reading meanwhile.
MAX_BATCHES = 16


class Closed(Exception):
    """Nobody takes any more."""


class HandOver:
    """`put` blocks, on threads; `take` is awaited on the loop that it was made on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._batches: asyncio.Queue[Sequence[Event] | BaseException] = asyncio.Queue()
        self._room = threading.BoundedSemaphore(MAX_BATCHES)
        self.closed = threading.Event()

    def put(self, events: Sequence[Event]) -> None:
        """Raises Closed."""
        self._room.acquire()
        if self.closed.is_set():
            self._room.release()  # for the next one who waits
            raise Closed
        self._send(events)

    def fail(self, error: BaseException) -> None:
        """`take` raises it: for what must not happen on a thread."""
        if not self.closed.is_set():
            self._send(error)

    async def take(self) -> Sequence[Event]:
        batch = await self._batches.get()
        if isinstance(batch, BaseException):
            raise batch
        self._room.release()
        return batch

    def close(self) -> None:
        """Whoever waits in `put` gets Closed."""
        self.closed.set()
        try:
            self._room.release()
        except ValueError:
            pass  # there is room: nobody waits

    def _send(self, batch: Sequence[Event] | BaseException) -> None:
        try:
            self._loop.call_soon_threadsafe(self._batches.put_nowait, batch)
        except RuntimeError as error:  # the loop has ended
            raise Closed from error
