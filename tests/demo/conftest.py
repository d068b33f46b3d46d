"""What the tests of this directory need: a cluster that is built, and the tools that build images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cluster.fixture import unusable

HERE = Path(__file__).parent
PATIENCE = 1200  # seconds for one test, which builds images first: only a hang is a failure


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(PATIENCE))
            item.add_marker(pytest.mark.root)


@pytest.fixture
def kubernetes() -> None:
    if reason := unusable():
        pytest.skip(reason)
    for tool in ("buildah", "mmdebstrap"):
        if not shutil.which(tool):
            pytest.skip(f"there is no {tool}: apt-get install --no-install-recommends buildah mmdebstrap")
