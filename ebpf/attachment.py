"""Whether the programs are where the loader has attached them: a link ends with its cgroup, or is detached."""

from __future__ import annotations

import os
from pathlib import Path

from ebpf import hooks, syscalls
from ebpf.pins import Pins


def idle_hooks(pins: Path) -> tuple[str, ...]:
    """Hooks without an attached program, in which nothing is captured. Raises OSError."""
    links = Pins(pins).links
    return tuple(hook.name for hook in hooks.CGROUP_HOOKS if not _is_attached(links / hook.name))


def _is_attached(pin: Path) -> bool:
    try:
        link = syscalls.get(pin)
    except FileNotFoundError:
        return False
    try:
        return syscalls.link_info(link).target != 0
    finally:
        os.close(link)
