"""What is made is removed, also after a run that was killed; what is not ours stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import cgroups, lifecycle, machine, record
from tests.cluster.commands import run
from tests.cluster.fixture import running, unusable
from tests.cluster.plan import state_directory

pytestmark = pytest.mark.root
NAME = "ambit-test-u"


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    if reason := unusable():
        pytest.skip(reason)
    yield
    lifecycle.down(NAME)


def command(*arguments: str, **options: object) -> subprocess.Popen[str]:
    whole = (sys.executable, "-m", "tests.cluster", "--name", NAME, *arguments)
    return subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, start_new_session=True, **options)  # type: ignore[call-overload,no-any-return]


def traces() -> list[str]:
    """Whatever on the machine has the cluster's name."""
    places = [Path("/run/netns"), Path("/sys/class/net"), state_directory(NAME).parent]
    places += [hierarchy.path for hierarchy in cgroups.hierarchies()]
    named = [str(path) for place in places for path in place.iterdir() if path.name.startswith(NAME)]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"clusters/{NAME}" in line]
    return named + mounts + processes_of_the_cluster()


def processes_of_the_cluster() -> list[str]:
    lines = run("ps", "-eo", "pid,stat,args").splitlines()
    return [line for line in lines if f"clusters/{NAME}" in line and line.split()[1][0] != "Z"]


@pytest.mark.parametrize("point", ["network is up", "nodes have containerd", "API server is ready"])
def test_nothing_is_left_of_an_up_that_was_killed(point: str) -> None:
    up = command("up", "--nodes", "1")
    assert up.stderr
    assert any(point in line for line in up.stderr)
    os.killpg(up.pid, signal.SIGKILL)
    up.communicate()
    assert traces()
    assert command("down").wait() == 0
    assert traces() == []


def test_up_replaces_the_remains_of_one_that_was_killed_and_finds_itself_running() -> None:
    before = {name: Path("/proc/sys", name).read_text() for name in machine.CHANGED}
    alone = not record.every()
    up = command("up", "--nodes", "1")
    assert up.stderr
    assert any("nodes have containerd" in line for line in up.stderr)
    os.killpg(up.pid, signal.SIGKILL)
    up.communicate()
    with running(NAME, nodes=1) as cluster:
        assert lifecycle.ready_nodes(cluster) == ["node1"]
        assert lifecycle.up(NAME, 1, False, print) == cluster
        with pytest.raises(RuntimeError, match="take it down first"):
            lifecycle.up(NAME, 2, False, print)
        held = command("down")
        assert held.wait() == 1
        assert "in use by" in held.communicate()[1]
        assert lifecycle.healthy(cluster)
        lifecycle.down(NAME)
    assert traces() == []
    assert not alone or before == {name: Path("/proc/sys", name).read_text() for name in machine.CHANGED}


def test_what_is_not_the_clusters_own_is_neither_used_nor_removed() -> None:
    run("ip", "netns", "add", f"{NAME}-outside")
    try:
        up = command("up", "--nodes", "1")
        assert f"network namespace {NAME}-outside exists" in up.communicate()[1]
        assert up.returncode == 1
        assert command("down").wait() == 0
        assert traces() == [f"/run/netns/{NAME}-outside"]
    finally:
        run("ip", "netns", "delete", f"{NAME}-outside")


@pytest.mark.skipif(Path("/usr/bin/go").exists(), reason="Go is where everybody's programs are")
def test_without_go_there_is_a_sentence_and_an_exit_code_of_its_own(tmp_path: Path) -> None:
    hide = '[ ! -d /usr/local/go/bin ] || mount -t tmpfs none /usr/local/go/bin; exec "$@"'
    whole = ("unshare", "--mount", "sh", "-c", hide, "sh", sys.executable, "-m", "tests.cluster", "build")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "AMBIT_CLUSTER_DIR": str(tmp_path)}
    done = subprocess.run(whole, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert "there is no Go toolchain" in done.stderr
