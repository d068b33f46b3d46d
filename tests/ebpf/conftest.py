from collections.abc import Iterator

import pytest

from tests.ebpf.stage import Stage, new_stage


@pytest.fixture(scope="session")
def shared_stage() -> Iterator[Stage]:
    with new_stage() as stage:
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """A node with the programs loaded, two pods, and nobody enrolled."""
    try:
        yield shared_stage
    finally:
        shared_stage.clear()
