"""Where cgroup v2 is, and the ids by which kernel programs know its groups."""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")


class NoCgroup2(Exception):
    def __str__(self) -> str:
        return "cgroup v2 is not mounted; mount it with: mount -t cgroup2 none /sys/fs/cgroup/unified"


def cgroup2_root() -> Path:
    """The mount point of cgroup v2: /sys/fs/cgroup, or next to v1 on hybrid machines. Raises NoCgroup2."""
    for line in MOUNTS.read_text().splitlines():
        _, target, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(target.replace("\\040", " "))
    raise NoCgroup2


def cgroup_id(path: Path) -> int:
    """What bpf_get_current_cgroup_id() says inside the group: on 64-bit kernels, the inode number of its directory."""
    return os.stat(path).st_ino


def own_cgroup(process: int | str = "self") -> Path:
    """The cgroup v2 directory of a process. Raises NoCgroup2, or FileNotFoundError for a process that is gone."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return cgroup2_root() / line[3:].lstrip("/")
    raise NoCgroup2
