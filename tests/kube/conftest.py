"""All tests here share one cluster with Ambit on it (fixture.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kube.installed import KubeMesh

PATIENCE = 900  # seconds for one test, the first of which builds images: only a hang is a failure
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(PATIENCE))
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def mesh(on_kubernetes: KubeMesh) -> KubeMesh:
    return on_kubernetes
