"""Where cgroup v2 and the pods' part of it are, and the ids by which kernel programs know its groups."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ebpf import syscalls

MOUNTS = Path("/proc/self/mountinfo")
HOST_VIEW = Path("/proc/1/ns/cgroup")
OWN_VIEW = Path("/proc/self/ns/cgroup")
CLONE_NEWCGROUP = 0x02000000

# The group of all pods: the kubelet's name with the cgroupfs driver, the systemd driver, and below a cgroupRoot of its
# own with the systemd driver (k8s.io/kubernetes/pkg/kubelet/cm: ToCgroupfs, ToSystemd).
KUBEPODS = re.compile(r"kubepods|(?:.+-)?kubepods\.slice")
DEEPEST_KUBEPODS = 4  # groups above it, for a kubelet with a cgroupRoot of its own; usually none


class NoCgroup2(Exception):
    def __str__(self) -> str:
        return "cgroup v2 is not mounted; mount it with: mount -t cgroup2 none /sys/fs/cgroup/unified"


class NoKubepods(Exception):
    """One sentence: the group of all pods was not found, or more than one was."""


def cgroup2_root() -> Path:
    """Where the whole of cgroup v2 is mounted, as far as this process may see it: at /sys/fs/cgroup, or next to v1 on
    hybrid machines. Raises NoCgroup2."""
    for root, target, kind in _mounts():
        if kind == "cgroup2" and root == "/":  # a container's own mount shows only its own group
            return target
    raise NoCgroup2


def cgroup_id(path: Path) -> int:
    """What bpf_get_current_cgroup_id() says inside the group: on 64-bit kernels, the inode number of its directory."""
    return os.stat(path).st_ino


def own_cgroup(process: int | str = "self") -> Path:
    """The cgroup v2 directory of a process. Raises NoCgroup2, or FileNotFoundError for a process that is gone."""
    return cgroup2_root() / cgroup_of(process).lstrip("/")


def cgroup_of(process: int | str = "self", proc: Path = Path("/proc")) -> str:
    """The path of a process within cgroup v2. Raises NoCgroup2, OSError (a process that is gone)."""
    for line in (proc / str(process) / "cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    raise NoCgroup2


def enter_host_view() -> None:
    """From now on this process sees cgroups as the host does: a container may have a cgroup namespace of its own, in
    which its own group is the root. Needs the host's process ids, and the right to look at its first process; without
    these nothing changes. Call it before there are threads. Raises OSError."""
    try:
        if os.stat(HOST_VIEW).st_ino == os.stat(OWN_VIEW).st_ino:
            return
        view = os.open(HOST_VIEW, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return
    try:
        if syscalls.libc.setns(view, CLONE_NEWCGROUP):
            raise syscalls.failure("see the host's cgroups")
    finally:
        os.close(view)


def kubepods(root: Path | None = None, own: str | None = None) -> Path:
    """The group of all pods of this node: the one that this process is in (as a container), else the only one there is.

    `root` and `own` are the cgroup v2 mount and the path of this process in it. Raises NoCgroup2, NoKubepods, OSError.
    """
    root = cgroup2_root() if root is None else root
    above = kubepods_above(cgroup_of() if own is None else own)
    if above is not None:
        return root / above.lstrip("/")
    found = sorted(_kubepods_below(root, DEEPEST_KUBEPODS))
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} groups of pods ({', '.join(map(str, found))})" if found else "no group of pods (kubepods)"
    raise NoKubepods(f"there {'are' if found else 'is'} {what} below {root}: name the one of this node")


def kubepods_above(path: str) -> str | None:
    """The part of a cgroup's path up to the group of all pods; None: it is not in one."""
    parts = path.split("/")
    for index, part in enumerate(parts):
        if KUBEPODS.fullmatch(part):
            return "/".join(parts[: index + 1])
    return None


def _kubepods_below(directory: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(os.scandir(directory), key=lambda each: each.name):
        if not entry.is_dir(follow_symlinks=False):
            continue
        if KUBEPODS.fullmatch(entry.name):
            yield Path(entry.path)
        elif depth:
            yield from _kubepods_below(Path(entry.path), depth - 1)


def _mounts() -> Iterator[tuple[str, Path, str]]:
    """(directory of the file system, mount point, its type) of each mount; see proc_pid_mountinfo(5)."""
    for line in MOUNTS.read_text().splitlines():
        placed, _, described = line.partition(" - ")
        root, target = placed.split()[3:5]
        yield root, Path(target.replace("\\040", " ")), described.split()[0]
