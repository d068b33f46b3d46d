"""Network namespaces as files: made, entered, removed. They hold without a process that lives in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from deploy.local import syscalls
from deploy.local.paths import NAMED_NETNS
from ebpf.netns import in_netns

Result = TypeVar("Result")


def inside(netns: Path, work: Callable[[], Result]) -> Result:
    """What `work` returns (or raises) when a thread runs it in that network namespace. Raises FileNotFoundError."""
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return in_netns(descriptor, work)
    finally:
        os.close(descriptor)


def create(netns: Path) -> None:
    """A new, empty network namespace; `ip netns` knows it by the file's name. Raises OSError."""
    netns.parent.mkdir(parents=True, exist_ok=True)
    netns.touch()
    try:
        inside(Path("/proc/self/ns/net"), lambda: _hold_new_namespace(netns))
    except OSError:
        netns.unlink()
        raise
    NAMED_NETNS.mkdir(exist_ok=True)
    with suppress(FileExistsError):
        (NAMED_NETNS / netns.name).symlink_to(netns)


def remove(netns: Path) -> None:
    """Nothing happens when it is gone already."""
    with suppress(OSError):
        syscalls.unmount(netns)
    netns.unlink(missing_ok=True)
    name = NAMED_NETNS / netns.name
    if name.is_symlink() and name.readlink() == netns:
        name.unlink(missing_ok=True)


def exists(netns: Path) -> bool:
    """Whether it is there and mounted: a plain file is what a crash between two steps leaves."""
    return netns.exists() and os.stat(netns).st_dev != os.stat(netns.parent).st_dev


def _hold_new_namespace(netns: Path) -> None:
    """On a thread of its own: a namespace belongs to a thread, and this process stays where it is."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    syscalls.bind("/proc/thread-self/ns/net", netns)
