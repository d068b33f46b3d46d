"""The few system calls about namespaces and mounts that Python 3.11 has no names for. Standard library only."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """The calling thread gets namespaces of its own."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, flags: int = 0) -> None:
    """The calling thread enters a namespace."""
    _check(_libc.setns(descriptor, flags), "setns")


def mount(source: str, target: Path | str, file_system: str = "", flags: int = 0, options: str = "") -> None:
    arguments = (source.encode(), str(target).encode(), file_system.encode() or None, flags, options.encode() or None)
    _check(
        _libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), arguments[4]), f"mount {target}"
    )


def unmount(target: Path | str, flags: int = MNT_DETACH) -> None:
    _check(_libc.umount2(str(target).encode(), flags), f"umount {target}")


def bind(source: Path | str, target: Path | str) -> None:
    mount(str(source), target, flags=MS_BIND)
