"""What exists is written down before it is made, so that an interrupted run can be cleaned up after."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tests.cluster.plan import BASE, Cluster, lock_of_changes, lock_of_users, state_directory


def save(cluster: Cluster) -> None:
    """At once: a half-written record would be as good as none."""
    cluster.state.mkdir(parents=True, exist_ok=True)
    (cluster.state / "cluster.new").write_text(json.dumps(asdict(cluster)))
    (cluster.state / "cluster.new").replace(cluster.state / "cluster.json")


def load(name: str) -> Cluster | None:
    """None when there is no such cluster, not even the remains of one."""
    try:
        return Cluster(**json.loads((state_directory(name) / "cluster.json").read_text()))
    except FileNotFoundError:
        return None


def every() -> list[Cluster]:
    """All clusters on this machine, and remains of such."""
    found = (load(path.parent.name) for path in (BASE / "clusters").glob("*/cluster.json"))
    return [cluster for cluster in found if cluster]


class InUseError(RuntimeError):
    """Another process holds the lock; the message says which."""


@contextmanager
def locked(path: Path, *, block: bool) -> Iterator[None]:
    """Hold an exclusive flock(2) on `path`, which tells others who holds it. Raises InUseError if not to block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise InUseError(f"in use by {file.read().strip() or 'another process'} (lock {path})") from None
        file.truncate(0)
        file.write(f"process {os.getpid()}: {' '.join(sys.argv)[:120]}\n")
        file.flush()
        yield


@contextmanager
def changing(name: str) -> Iterator[None]:
    """One process at a time brings a cluster up or down."""
    with locked(lock_of_changes(name), block=True):
        yield


@contextmanager
def choosing() -> Iterator[None]:
    """One process at a time takes or gives back what clusters share: networks and the kernel's settings."""
    with locked(BASE / "locks/machine", block=True):
        yield


def in_use(name: str) -> str:
    """Who holds the lock of those that work with the cluster; empty when nobody does."""
    try:
        with locked(lock_of_users(name), block=False):
            return ""
    except InUseError as error:
        return str(error)
