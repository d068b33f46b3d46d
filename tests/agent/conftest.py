from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.node import Node, new_node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node whose control plane runs, and on which nothing else does yet."""
    with new_node(tmp_path) as fresh:
        yield fresh
