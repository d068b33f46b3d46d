"""Takes away what test runs that were killed have left: everything of theirs is named after their process id."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from deploy.local import namespaces, teardown
from deploy.local.paths import BPF_FILE_SYSTEM, NAMED_NETNS, Instance
from ebpf.cgroups import cgroup2_root

OURS = re.compile(r"ambit-test-(?:[a-z]+-)?(\d+)(?:-.*)?")
LOCAL = re.compile(r"ambit-test-(?:local|updown)-\d+")


def sweep() -> None:
    for instance in sorted(filter(LOCAL.fullmatch, _left(Path("/run/ambit"), Path("/var/lib/ambit")))):
        teardown.remove(Instance.named(instance), lambda _: None)
    for name in _left(cgroup2_root()):
        _end_cgroup(cgroup2_root() / name)
    for name in _left(NAMED_NETNS):
        namespaces.remove(NAMED_NETNS / name)
    for name in _left(BPF_FILE_SYSTEM):
        shutil.rmtree(BPF_FILE_SYSTEM / name, ignore_errors=True)


def _left(*places: Path) -> set[str]:
    names = {entry.name for place in places if place.is_dir() for entry in place.iterdir()}
    return {name for name in names if (found := OURS.fullmatch(name)) and not _lives(int(found[1]))}


def _lives(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def _end_cgroup(cgroup: Path) -> None:
    with suppress(OSError):
        (cgroup / "cgroup.kill").write_text("1")
    for directory, _, _ in _deepest_first(cgroup):
        with suppress(OSError):
            os.rmdir(directory)


def _deepest_first(cgroup: Path) -> Iterable[tuple[str, list[str], list[str]]]:
    return os.walk(cgroup, topdown=False)
