from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.arena import Arena
from tests.hostile.pair import Pair
from tests.worker.node import Node, new_node


@pytest.fixture(scope="module")
def hostile_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with new_node(Path(tmp_path_factory.mktemp("ledger"))) as node:
        yield node


@pytest.fixture(scope="module")
def arena(hostile_node: Node) -> Iterator[Arena]:
    """One worker for all attacks of a module: what one of them leaves behind, the next one finds."""
    arena = Arena(hostile_node, AMBIT_HANDSHAKE_TIMEOUT="3s", AMBIT_PREFACE_TIMEOUT="3s")
    try:
        yield arena
    finally:
        arena.close()


@pytest.fixture(scope="module")
def pair(hostile_node: Node) -> Iterator[Pair]:
    """Two workers, one for each pod, as they are by default but for the streams of a tunnel."""
    streams = "1200"
    pair = Pair(
        hostile_node,
        POOL_MAX_STREAMS_PER_CONNECTION=streams,
        AMBIT_MAX_STREAMS_PER_TUNNEL=streams,
    )
    try:
        yield pair
    finally:
        pair.close()
