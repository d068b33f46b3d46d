from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.captured import CapturedNode, new_captured_node
from tests.worker.node import Node, new_node


@pytest.fixture(scope="session")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with new_node(Path(tmp_path_factory.mktemp("ledger"))) as node:
        yield node


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """Two pods that nobody serves yet."""
    try:
        yield shared_node
    finally:
        shared_node.clear()


@pytest.fixture(scope="session")
def shared_captured_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CapturedNode]:
    with new_captured_node(Path(tmp_path_factory.mktemp("unused"))) as node:
        yield node


@pytest.fixture
def captured(shared_captured_node: CapturedNode) -> Iterator[CapturedNode]:
    """Two pods that are not enrolled yet, with the real capture below them."""
    try:
        yield shared_captured_node
    finally:
        shared_captured_node.clear()
