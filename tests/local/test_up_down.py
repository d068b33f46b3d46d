"""The beginning and the end of a mesh, and what happens when they go wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import api, bring_up, cgroups, network, preflight
from deploy.local.paths import Instance
from tests.local.mesh import LocalMesh, environment, left_behind, quiet, until

pytestmark = pytest.mark.root


@pytest.fixture
def instance() -> Iterator[Instance]:
    """A name of its own, and nothing left of it whatever happens."""
    with environment(f"ambit-test-updown-{os.getpid()}"):
        try:
            yield Instance.current()
        finally:
            api.down(quiet)


def test_up_after_a_crash_and_down_after_a_crash(instance: Instance) -> None:
    """The daemon is killed, then everything; what is there is always found."""
    api.up(1, quiet)
    daemon = int(instance.daemon.read_text())
    os.kill(daemon, signal.SIGKILL)
    until(lambda: not api.is_running(), "the daemon is dead")
    with pytest.raises(api.LocalError, match="ambit local down"):
        api.require_running()
    told: list[str] = []
    api.up(1, told.append)
    assert any(f"(process {daemon}) has died" in sentence for sentence in told)
    with pytest.raises(api.LocalError, match="ambit local down"):
        api.up(1, quiet)
    cgroups.kill(instance.cgroup)
    api.down(quiet)
    assert left_behind(instance) == []
    api.down(quiet)
    with pytest.raises(api.LocalError, match="ambit local up"):
        api.require_running()


def test_two_meshes_side_by_side(instance: Instance, mesh: LocalMesh) -> None:
    """Same addresses, different worlds; the end of one is not felt by the other."""
    api.up(1, quiet)
    assert api.nodes() == ["node1"]
    api.down(quiet)
    assert left_behind(instance) == []
    with environment(mesh.instance.name):
        assert "two on node2" in mesh.ask("play", "one", "http://two/")


@pytest.mark.parametrize("broken", ["make_underlay", "make_node"])
def test_an_up_that_fails_leaves_nothing(instance: Instance, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fail(*_: object) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(network, broken, fail)
    with pytest.raises(api.LocalError, match="no such luck"):
        api.up(1, quiet)
    assert left_behind(instance) == []


def test_a_part_that_does_not_come_up(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up soon, with the words of the part, and removed."""
    monkeypatch.setattr(bring_up, "PATIENCE", 60.0)
    monkeypatch.setenv("RUST_LOG", "nonsense=level")
    with pytest.raises(api.LocalError, match="nonsense"):
        api.up(1, quiet)
    assert left_behind(instance) == []


def test_what_is_missing_is_told_in_one_sentence(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "NFT", "no-such-nft")
    with pytest.raises(api.LocalError, match="apt-get install nftables"):
        api.up(1, quiet)
    with pytest.raises(api.LocalError, match="1 to 200 nodes"):
        api.up(0, quiet)
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with pytest.raises(api.LocalError, match="root"):
        api.up(1, quiet)
    assert left_behind(instance) == []


def test_one_at_a_time(instance: Instance) -> None:
    with bring_up.exclusive(instance), pytest.raises(api.LocalError, match="at work"):
        api.down(quiet)
    assert not list(Path("/run").glob(f"{instance.name}*"))


def test_a_node_process_that_dies_finds_its_pods(mesh: LocalMesh) -> None:
    """Pods and ztunnel go on without it, and are the same afterwards; what has ended does not run again."""
    mesh.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: prepared, namespace: play}\nspec:\n  nodeName: node1\n"
        "  volumes: [{name: tmp, emptyDir: {}}]\n"
        "  initContainers: [{name: before, command: [sh, -c, 'echo once >> /mnt/x'],"
        " volumeMounts: [{name: tmp, mountPath: /mnt}]}]\n"
        "  containers: [{name: main, image: ambit/echo, volumeMounts: [{name: tmp, mountPath: /mnt}]}]\n"
    )
    until(lambda: mesh.ready("prepared", "play"), "a pod with an init container is ready")
    node = mesh.instance.node("node1")
    before = cgroups.processes(node.cgroup)
    with environment(mesh.instance.name):
        pid = api.status()["processes"]["node1"]["pid"]
        os.kill(pid, signal.SIGKILL)
        assert "two on node2" in mesh.ask("play", "one", f"http://{mesh.address('two', 'play')}:8080/")
        until(lambda: api.status()["processes"]["node1"]["pid"] not in (0, pid), "it is back")
        until(lambda: "two on node2" in mesh.ask("play", "one", "http://two/"), "names are answered again")
        assert mesh.status("one", "play")["containerStatuses"][0]["restartCount"] == 0
        assert mesh.run("play", "prepared", "cat", "/mnt/x").stdout == "once\n"
    assert before <= cgroups.processes(node.cgroup)
