"""cgroups of the cluster, alike in every hierarchy: cgroup v2 alone, or v1 beside v2 ("hybrid")."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy; `options` are those that mount it again."""

    path: Path
    kind: str
    options: str


def hierarchies() -> list[Hierarchy]:
    """Those of /proc/self/mountinfo (proc_pid_mountinfo(5)) below /sys/fs/cgroup."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        path = Path(before.split(" ")[4])
        if kind in ("cgroup", "cgroup2") and path.is_relative_to("/sys/fs/cgroup"):
            found.append(Hierarchy(path, kind, _mount_options(options.split(","))))
    return found


def _mount_options(options: list[str]) -> str:
    named = [option for option in options if option.startswith("name=")]
    controllers = [option for option in options if option.isidentifier() and option not in ("rw", "ro", "xattr")]
    return ",".join(["none", *named] if named else controllers)


def unified() -> Path:
    """The mount point of cgroup v2. Raises FileNotFoundError when there is none."""
    for hierarchy in hierarchies():
        if hierarchy.kind == "cgroup2":
            return hierarchy.path
    raise FileNotFoundError("no cgroup v2 is mounted below /sys/fs/cgroup; the cluster needs it (also beside v1)")


def create(group: str) -> None:
    for hierarchy in hierarchies():
        path = hierarchy.path
        for part in Path(group).parts:
            _delegate(hierarchy, path)
            path = path / part
            path.mkdir(exist_ok=True)
            _give_processors(path)


def _delegate(hierarchy: Hierarchy, path: Path) -> None:
    """Let children of a v2 group of ours have its controllers; the machine's own root is not ours to change."""
    if hierarchy.kind == "cgroup2" and path != hierarchy.path:
        controllers = (path / "cgroup.controllers").read_text().split()
        (path / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))


def _give_processors(path: Path) -> None:
    """A v1 cpuset is made empty, and an empty one takes no process."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (path / name).exists() and (path.parent / "tasks").exists() and not (path / name).read_text().strip():
            (path / name).write_text((path.parent / name).read_text())


def taken(group: str) -> list[str]:
    return [f"cgroup {hierarchy.path / group}" for hierarchy in hierarchies() if (hierarchy.path / group).exists()]


def members(group: str) -> list[Path]:
    """The files that take a process into the group."""
    return [hierarchy.path / group / "cgroup.procs" for hierarchy in hierarchies()]


def retreat(group: str, leaf: str) -> None:
    """Move the group's own processes to a leaf below it; v2 gives no controllers to groups beside processes."""
    for hierarchy in hierarchies():
        path = hierarchy.path / group
        (path / leaf).mkdir(exist_ok=True)
        _give_processors(path / leaf)
        for pid in (path / "cgroup.procs").read_text().split():
            (path / leaf / "cgroup.procs").write_text(pid)
        _delegate(hierarchy, path)


def kill(group: str, seconds: float = 20) -> None:
    """End every process in the group and below, at once. Raises TimeoutError when one stays."""
    root = unified() / group
    if not root.exists():
        return
    (root / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + seconds
    while "populated 1" in (root / "cgroup.events").read_text():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{root}: processes in it do not end within {seconds:.0f} s")
        time.sleep(0.05)


def remove(group: str, seconds: float = 10) -> None:
    """Remove the group and all below it. Raises OSError when a process is still in it."""
    deadline = time.monotonic() + seconds
    for root in [hierarchy.path / group for hierarchy in hierarchies()]:
        for path in sorted((path for path in (root, *root.rglob("*")) if path.is_dir()), reverse=True):
            _remove_one(path, deadline)


def _remove_one(path: Path, deadline: float) -> None:
    while True:
        try:
            return path.rmdir()
        except FileNotFoundError:
            return None
        except OSError:  # a process that has just ended leaves its v1 groups a moment later
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
