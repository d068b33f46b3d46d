"""Pods' network namespaces are found on real cgroups and held, whatever happens to processes and paths."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.node.networks import PodNetworks
from tests.node.place import Kubelet, kubelet, new_uid
from tests.node.test_zds import PATIENCE

pytestmark = pytest.mark.root


@pytest.fixture(params=["kubepods", "kubepods.slice"])
def node(request: pytest.FixtureRequest) -> Iterator[Kubelet]:
    with kubelet(request.param) as made:
        yield made


def in_namespace(process: int, netns: Path) -> bool:
    return os.stat(f"/proc/{process}/ns/net").st_ino == os.stat(netns).st_ino


def settle(process: int, netns: Path) -> None:
    """nsenter takes its moment."""
    deadline = time.monotonic() + PATIENCE
    while not in_namespace(process, netns):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_running_pod_is_found(node: Kubelet, kind: int) -> None:
    uid, netns = new_uid(), node.namespace()
    settle(node.run(uid, netns, kind).pid, netns)
    networks = PodNetworks(node.kubepods)
    found = networks.netns(uid)
    assert found is not None
    assert os.stat(found).st_ino == os.stat(netns).st_ino
    assert networks.netns(new_uid()) is None


def test_a_pod_on_the_host_has_none(node: Kubelet) -> None:
    uid = new_uid()
    node.run(uid, None)
    assert PodNetworks(node.kubepods).netns(uid) is None


def test_helpers_and_strays_do_not_count(node: Kubelet) -> None:
    """The runtime's helper stays on the host; a process that came later may be anywhere."""
    uid, netns, elsewhere = new_uid(), node.namespace(), node.namespace()
    node.run(uid, None)
    settle(node.run(uid, netns).pid, netns)
    settle(node.run(uid, elsewhere).pid, elsewhere)
    found = PodNetworks(node.kubepods).netns(uid)
    assert found is not None
    assert os.stat(found).st_ino == os.stat(netns).st_ino


def test_it_is_held_when_its_processes_are_gone(node: Kubelet) -> None:
    uid, netns = new_uid(), node.namespace()
    process = node.run(uid, netns)
    settle(process.pid, netns)
    networks = PodNetworks(node.kubepods)
    before = networks.netns(uid)
    assert before is not None
    process.kill()
    process.wait()
    networks.look_again(uid)
    assert networks.netns(uid) is before
    assert networks.has_ended(uid)
    networks.forget(uid)
    assert networks.netns(uid) is None


def test_a_namespace_that_was_told_counts_before_any_process_runs(node: Kubelet) -> None:
    uid, netns = new_uid(), node.namespace()
    networks = PodNetworks(node.kubepods)
    networks.told(uid, netns, "sandbox1")
    found = networks.netns(uid)
    assert found is not None
    assert os.stat(found).st_ino == os.stat(netns).st_ino
    assert not networks.has_ended(uid)
    assert networks.is_of(uid, "sandbox1")
    assert not networks.is_of(uid, "sandbox0")


def test_a_new_sandbox_replaces_the_old_one(node: Kubelet) -> None:
    """Also while a process of the old one still lives."""
    uid, old, new = new_uid(), node.namespace(), node.namespace()
    process = node.run(uid, old)
    settle(process.pid, old)
    networks = PodNetworks(node.kubepods)
    before = networks.netns(uid)
    networks.told(uid, new, "sandbox2")
    networks.look_again(uid)
    after = networks.netns(uid)
    assert before is not None
    assert after is not None
    assert os.stat(after).st_ino == os.stat(new).st_ino
    assert os.stat(before).st_ino == os.stat(old).st_ino  # who still holds it has not got another one


def test_a_new_sandbox_that_nobody_told_of_is_noticed(node: Kubelet) -> None:
    uid, old, new = new_uid(), node.namespace(), node.namespace()
    process = node.run(uid, old)
    settle(process.pid, old)
    networks = PodNetworks(node.kubepods)
    networks.netns(uid)
    process.kill()
    process.wait()
    settle(node.run(uid, new).pid, new)
    networks.look_again(uid)
    found = networks.netns(uid)
    assert found is not None
    assert os.stat(found).st_ino == os.stat(new).st_ino


def test_the_host_is_no_pod(node: Kubelet) -> None:
    with pytest.raises(ValueError, match="of the host"):
        PodNetworks(node.kubepods).told(new_uid(), Path("/proc/self/ns/net"), "")
    with pytest.raises(FileNotFoundError):
        PodNetworks(node.kubepods).told(new_uid(), Path("/run/netns/nothing"), "")


def test_a_static_pod_is_known_by_its_own_uid(node: Kubelet) -> None:
    mirror, static, netns = new_uid(), "0f" * 16, node.namespace()
    settle(node.run(static, netns).pid, netns)
    networks = PodNetworks(node.kubepods)
    assert networks.netns(mirror) is None
    networks.static = {mirror: static}
    assert networks.netns(mirror) is not None


def test_a_visitor_does_not_take_a_namespace_from_its_pod(node: Kubelet) -> None:
    """ztunnel, a pod on the host, goes from pod to pod; so may others that have the right to."""
    uid, visitor, netns = new_uid(), new_uid(), node.namespace()
    settle(node.run(uid, netns).pid, netns)
    settle(node.run(visitor, netns).pid, netns)
    networks = PodNetworks(node.kubepods)
    assert networks.netns(uid) is not None
    assert networks.netns(visitor) is None


def test_what_the_plugin_says_counts_more_than_a_visitor(node: Kubelet) -> None:
    uid, visitor, netns = new_uid(), new_uid(), node.namespace()
    settle(node.run(visitor, netns).pid, netns)
    networks = PodNetworks(node.kubepods)
    assert networks.netns(visitor) is not None
    networks.told(uid, netns, "sandbox1")
    assert networks.netns(uid) is not None
    assert networks.netns(visitor) is None


def test_a_namespace_is_not_given_up_while_a_process_of_the_pod_is_in_it(node: Kubelet) -> None:
    """Its first process may have gone elsewhere by itself, or ended."""
    uid, netns, elsewhere = new_uid(), node.namespace(), node.namespace()
    first = node.run(uid, netns)
    settle(first.pid, netns)
    networks = PodNetworks(node.kubepods)
    before = networks.netns(uid)
    settle(node.run(uid, elsewhere).pid, elsewhere)
    settle(node.run(uid, netns).pid, netns)
    first.kill()
    first.wait()
    networks.look_again(uid)
    assert networks.netns(uid) is before


def test_the_end_of_an_older_sandbox_is_not_that_of_the_pod(node: Kubelet) -> None:
    """An agent that was restarted does not know which sandbox it is that runs."""
    uid, netns = new_uid(), node.namespace()
    process = node.run(uid, netns)
    settle(process.pid, netns)
    networks = PodNetworks(node.kubepods)
    assert networks.netns(uid) is not None
    assert not networks.is_of(uid, "sandbox0")
    process.kill()
    process.wait()
    assert networks.is_of(uid, "sandbox0")
