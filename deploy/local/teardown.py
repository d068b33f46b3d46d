"""Removes all that a local mesh has made. It asks the machine what is there, and no process: so it works after a crash,
and again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from deploy.local import cgroups, namespaces
from deploy.local.errors import LocalError
from deploy.local.paths import NAMED_NETNS, Instance

Progress = Callable[[str], None]


def is_there(instance: Instance) -> bool:
    """Whether anything of this mesh is left."""
    return any(each.exists() for each in (instance.runtime, instance.state, instance.cgroup, instance.pins))


def remove(instance: Instance, progress: Progress) -> None:
    """Raises LocalError: something resists."""
    try:
        progress("Ending all processes")
        cgroups.remove(instance.cgroup)
        progress("Removing eBPF programs, network namespaces and files")
        _remove_pins(instance.pins)
        _remove_namespaces(instance)
        shutil.rmtree(instance.runtime, ignore_errors=True)
        shutil.rmtree(instance.state, ignore_errors=True)
    except OSError as error:
        raise LocalError(f"the mesh {instance.name} cannot be removed completely: {error}") from error
    for directory in (instance.runtime.parent, instance.state.parent):
        with suppress(OSError):  # others are still there
            directory.rmdir()


def _remove_pins(pins: Path) -> None:
    """What is pinned ends with its last pin, programs leave their cgroup with their links."""
    for directory, _, files in os.walk(pins, topdown=False):
        for name in files:
            Path(directory, name).unlink(missing_ok=True)
        os.rmdir(directory)


def _remove_namespaces(instance: Instance) -> None:
    if instance.namespaces.is_dir():
        for netns in instance.namespaces.iterdir():
            namespaces.remove(netns)
    if NAMED_NETNS.is_dir():  # links of namespaces whose files are gone
        for link in NAMED_NETNS.iterdir():
            if link.is_symlink() and link.readlink().parent == instance.namespaces:
                link.unlink(missing_ok=True)
