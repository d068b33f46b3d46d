"""Network namespaces and cgroups, as the node addresses them."""

import os
from pathlib import Path

import pytest

from ebpf import cgroups, netns
from tests.ebpf.stage import Stage, new_cgroup, unique_name

pytestmark = pytest.mark.root


def test_cookies_tell_namespaces_apart(stage: Stage) -> None:
    own = netns.own_cookie()
    assert len({own, stage.a.cookie, stage.b.cookie}) == 3
    assert netns.netns_cookie(Path("/proc/self/ns/net")) == own
    descriptor = os.open(stage.a.netns, os.O_RDONLY)
    assert netns.netns_cookie(descriptor) == stage.a.cookie
    os.close(descriptor)


def test_in_netns_leaves_the_caller_where_it_was(stage: Stage) -> None:
    own = netns.own_cookie()
    descriptor = os.open(stage.a.netns, os.O_RDONLY)
    assert netns.in_netns(descriptor, netns.own_cookie) == stage.a.cookie
    with pytest.raises(ZeroDivisionError):
        netns.in_netns(descriptor, lambda: 1 // 0)
    os.close(descriptor)
    assert netns.own_cookie() == own


def test_no_namespace_is_an_error() -> None:
    with open(os.devnull) as file, pytest.raises(OSError, match="setns"):
        netns.in_netns(file.fileno(), lambda: None)


def test_the_id_of_a_cgroup_is_what_programs_see(stage: Stage) -> None:
    """An exempt process is recognised: so the id is right."""
    assert cgroups.cgroup_id(stage.ztunnel_cgroup) in stage.capture.exempted()
    with new_cgroup(unique_name()) as one, new_cgroup(unique_name()) as other:
        assert cgroups.cgroup_id(one) != cgroups.cgroup_id(other)


def test_own_cgroup(stage: Stage) -> None:
    actor = stage.app(stage.a, lambda: str(cgroups.own_cgroup()))
    assert actor.report() == str(stage.pods_cgroup)


def test_the_root_is_a_cgroup2_mount() -> None:
    assert (cgroups.cgroup2_root() / "cgroup.procs").exists()
