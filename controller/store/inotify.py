"""What happens to the files of some directories, from the kernel's inotify(7), without threads or polling."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from controller.store.interface import StoreError

IN_CLOSE_WRITE = 0x0008
IN_MOVED_FROM = 0x0040
IN_MOVED_TO = 0x0080
IN_CREATE = 0x0100
IN_DELETE = 0x0200
IN_DELETE_SELF = 0x0400
IN_MOVE_SELF = 0x0800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x0100_0000
IN_ISDIR = 0x4000_0000

ENTRIES = IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF  # what comes and goes
CONTENTS = ENTRIES | IN_CLOSE_WRITE  # and what is written: a file counts when it is complete
_HEADER = struct.Struct("iIII")  # struct inotify_event: wd, mask, cookie, len
_READ_SIZE = 64 * 1024  # about 1,500 events at once

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something happened to `name` in `directory`; without a name, to the directory itself or to unknown files."""

    directory: Path | None
    name: str
    mask: int

    @property
    def concerns_directories(self) -> bool:
        """Whether the set of directories may have changed, or notices were lost: only looking at everything helps."""
        return not self.name or bool(self.mask & (IN_ISDIR | IN_Q_OVERFLOW | IN_IGNORED))


class Inotify:
    """A context manager. Raises StoreError when the kernel's limits are reached."""

    def __init__(self) -> None:
        descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._descriptor = _checked(descriptor, "fs.inotify.max_user_instances")
        self._directories: dict[int, Path] = {}

    def __enter__(self) -> Inotify:
        return self

    def __exit__(self, *_: object) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def add(self, directory: Path, interest: int) -> bool:
        """Watch a directory, once however often it is added. False when there is no such directory."""
        watch = _libc.inotify_add_watch(self._descriptor, os.fsencode(directory), interest | IN_ONLYDIR)
        if watch < 0 and ctypes.get_errno() in (2, 20):  # ENOENT, ENOTDIR: it has just gone
            return False
        self._directories[_checked(watch, "fs.inotify.max_user_watches")] = directory
        return True

    async def read(self, patience: float | None = None) -> list[Notice]:
        """What happened since; waits until something has, at most `patience` seconds (then the list is empty)."""
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._descriptor, _resolve, readable)
        try:
            await asyncio.wait_for(readable, patience)
        except TimeoutError:
            return []
        finally:
            loop.remove_reader(self._descriptor)
        return self._take()

    def _take(self) -> list[Notice]:
        notices = []
        try:
            data = os.read(self._descriptor, _READ_SIZE)
        except BlockingIOError:
            return []
        position = 0
        while position < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, position)
            position += _HEADER.size
            name = os.fsdecode(data[position : position + length].rstrip(b"\0"))
            position += length
            notices.append(Notice(self._directories.get(watch), name, mask))
            if mask & IN_IGNORED:
                self._directories.pop(watch, None)
        return notices


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _checked(result: int, limit: str) -> int:
    if result < 0:
        reason = os.strerror(ctypes.get_errno())
        raise StoreError(f"cannot watch the store's files: {reason} (see sysctl {limit})")
    return result
