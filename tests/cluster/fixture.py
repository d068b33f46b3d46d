"""The cluster for tests: `from tests.cluster.fixture import cluster` in a conftest.

AMBIT_CLUSTER=keep uses the cluster that is up and leaves it up; without it, each test session has one of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster import build, lifecycle, record
from tests.cluster.plan import DEFAULT_NAME, Cluster, lock_of_users


def _say(line: str) -> None:
    print(f"cluster: {line}", file=sys.stderr, flush=True)


def unusable() -> str:
    """Why there can be no cluster here; empty when there can. A test run compiles nothing: that takes minutes."""
    if os.geteuid() != 0:
        return "the test cluster needs root"
    if not build.built():
        return (
            str(build.NoGoError())
            if build.go() is None
            else "run `python -m tests.cluster build` first (5 to 15 minutes)"
        )
    return ""


@contextmanager
def running(name: str = DEFAULT_NAME, nodes: int = 2, dual_stack: bool = False) -> Iterator[Cluster]:
    """A cluster that nobody else works with meanwhile. Raises InUseError when somebody does."""
    with record.locked(lock_of_users(name), block=False):
        keep = os.environ.get("AMBIT_CLUSTER") == "keep"
        try:
            yield lifecycle.up(name, nodes, dual_stack, _say, mine=True)
        finally:
            if not keep:
                lifecycle.down(name)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if reason := unusable():
        pytest.skip(reason)
    with running() as made:
        yield made
