"""`on_kubernetes`: a cluster with Ambit on it for a whole test run; AMBIT_CLUSTER=keep leaves both up for the next."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster.fixture import running, unusable
from tests.kube.artifacts import CannotBuild
from tests.kube.installed import KubeMesh, installed

NAME = os.environ.get("AMBIT_CLUSTER_NAME", "kube")


@pytest.fixture(scope="session")
def on_kubernetes() -> Iterator[KubeMesh]:
    if reason := unusable():
        pytest.skip(reason)
    try:
        with (
            running(NAME, nodes=2, dual_stack=True) as cluster,
            installed(cluster, keep=os.environ.get("AMBIT_CLUSTER") == "keep") as mesh,
        ):
            yield mesh
    except CannotBuild as problem:
        pytest.skip(str(problem))
