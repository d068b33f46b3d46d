from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.node import Kernel, Node, loaded_kernel, new_node


@pytest.fixture(scope="session")
def kernel() -> Iterator[Kernel]:
    with loaded_kernel() as loaded:
        yield loaded


@pytest.fixture
def node(kernel: Kernel, tmp_path: Path) -> Iterator[Node]:
    """A node whose control plane runs, and on which nothing else does yet."""
    with new_node(kernel, tmp_path) as fresh:
        yield fresh
