"""What is attached no more is noticed, whoever has detached it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ebpf import hooks, syscalls
from ebpf.attachment import idle_hooks
from tests.ebpf.stage import load, loader, new_cgroup, unique_name

pytestmark = pytest.mark.root


@pytest.fixture
def pins() -> Iterator[Path]:
    name = unique_name()
    place = Path("/sys/fs/bpf") / name
    with new_cgroup(name) as cgroup:
        load(place, cgroup)
        try:
            yield place
        finally:
            loader("unload", "--pins", str(place))


def test_hooks_are_idle_once_their_programs_are_detached(pins: Path) -> None:
    assert idle_hooks(pins) == ()
    link = syscalls.get(pins / "links" / "connect4")
    syscalls.link_detach(link)
    os.close(link)
    (pins / "links" / "sendmsg6").unlink()
    assert set(idle_hooks(pins)) == {"connect4", "sendmsg6"}
    loader("unload", "--pins", str(pins))
    assert idle_hooks(pins) == tuple(hook.name for hook in hooks.CGROUP_HOOKS)
