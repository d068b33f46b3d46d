"""What remains when a mesh has gone, also when it went badly: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.conftest import Mesh

pytestmark = pytest.mark.root


def _left(mesh: Mesh) -> list[str]:
    name = mesh.instance.name
    places = [mesh.instance.cgroup, mesh.instance.pins, mesh.instance.runtime]
    left = [str(place) for place in places if place.exists()]
    left += [line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line]
    left += [str(each) for each in Path("/run/netns").glob(f"{name}-*")]
    return left


@pytest.fixture
def passing_mesh() -> Mesh:
    return Mesh("ambit-test-pass")


def test_down_leaves_nothing_even_after_kill(passing_mesh: Mesh) -> None:
    """All its processes are killed at once, as by a crash; `up` works over the ruins, `down` clears them."""
    try:
        passing_mesh.must("local", "up", "--nodes", "1")
        passing_mesh.kill(passing_mesh.processes("deploy.local.daemon"))
        passing_mesh.kill(passing_mesh.processes(""))
        passing_mesh.must("local", "up", "--nodes", "1")
        passing_mesh.kill(passing_mesh.processes("deploy.local.daemon"))
    finally:
        passing_mesh.must("local", "down")
    assert _left(passing_mesh) == []
    passing_mesh.must("local", "down")
