"""The directory of a node's pins: maps/, programs/, links/ (one per cgroup hook) and inbound/ (one link per pod)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ebpf import syscalls

BPFFS = Path("/sys/fs/bpf")
NEXT = "-next"  # a pin on its way to its name
DIRECTORIES = ("maps", "programs", "links", "inbound")


class Pins:
    def __init__(self, root: Path) -> None:
        """Raises ValueError for a path that a file system of pins cannot have."""
        if not root.is_absolute() or ".." in root.parts:
            raise ValueError(f"{root}: the directory of pins must be an absolute path")
        if any(character in str(root) for character in '."\\'):
            raise ValueError(f"{root}: bpffs allows no dot in a name")
        self.root = root
        self.maps, self.programs, self.links, self.inbound = (root / name for name in DIRECTORIES)

    def make(self) -> None:
        for name in DIRECTORIES:
            (self.root / name).mkdir(parents=True, exist_ok=True, mode=0o700)

    def remove_unnamed(self) -> None:
        """Removes what a killed process had pinned but not named yet."""
        for directory in (self.inbound, self.links, self.programs):
            for pin in directory.glob(f"*{NEXT}"):
                pin.unlink()

    def clear(self) -> None:
        """Removes every pin, links first: what has no other holder ends with it. Refuses any other file system."""
        if syscalls.filesystem_magic(self.root) != syscalls.BPFFS_MAGIC:
            raise ValueError(f"{self.root} is not on a bpffs")
        for directory in (self.inbound, self.links, self.programs, self.maps):
            if directory.exists():
                for pin in directory.iterdir():
                    pin.unlink()
                directory.rmdir()

    def remove(self) -> None:
        self.clear()
        self.root.rmdir()

    @contextmanager
    def locked(self, exclusive: bool) -> Iterator[None]:
        """Keeps a swap of programs and the attaching of pods apart, across processes; ends with the process."""
        directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            if os.fstat(directory).st_nlink == 0:
                raise FileNotFoundError(f"{self.root} was removed by another process")
            yield
        finally:
            os.close(directory)


def names(directory: Path) -> list[str]:
    """Names of the pins in a directory, which may be missing."""
    found = sorted(os.listdir(directory)) if directory.is_dir() else []
    return [name for name in found if not name.endswith(NEXT)]


def replace(descriptor: int, path: Path) -> None:
    """Pins over whatever is pinned there, so that the path never misses."""
    fresh = path.with_name(path.name + NEXT)
    fresh.unlink(missing_ok=True)
    syscalls.pin(descriptor, fresh)
    fresh.rename(path)
