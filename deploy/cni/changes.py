"""Waiting for something to change in directories: inotify, and a look every few seconds in any case."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import struct
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger("cni-installer")

# sys/inotify.h: an entry is written, moved here or away, removed; the directory itself is removed.
EVENTS = 0x008 | 0x040 | 0x080 | 0x200 | 0x400
FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
READ_SIZE = 64 * struct.calcsize("iIII") + 64 * 256  # 64 events with the longest names; more are read in another round

_libc = ctypes.CDLL(None, use_errno=True)


class Changes:
    """A context manager. Without inotify (the user's instances are used up) each wait takes its whole time."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self._directories = tuple(directories)
        self._inotify = _libc.inotify_init1(FLAGS)
        if self._inotify < 0:
            log.warning("no inotify (%s): looking every few seconds", os.strerror(ctypes.get_errno()))

    def __enter__(self) -> Changes:
        self.watch()
        return self

    def __exit__(self, *_: object) -> None:
        if self._inotify >= 0:
            os.close(self._inotify)

    def watch(self) -> None:
        """Changes after this count. To be called before each look: a directory may have been made again meanwhile."""
        for directory in self._directories:
            if self._inotify >= 0:
                _libc.inotify_add_watch(self._inotify, bytes(directory), EVENTS)  # the same one again changes nothing

    async def wait(self, longest: float) -> None:
        """Returns when something has changed since the last wait, or after so many seconds."""
        if self._inotify < 0:
            await asyncio.sleep(longest)
            return
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._inotify, changed.set)
        try:
            async with asyncio.timeout(longest):
                await changed.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(self._inotify)
            self._forget()

    def _forget(self) -> None:
        try:
            while os.read(self._inotify, READ_SIZE):
                pass
        except BlockingIOError:
            pass
