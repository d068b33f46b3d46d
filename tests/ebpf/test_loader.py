"""The loader as its callers see it: what it leaves, what it keeps, what it says when it cannot."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpf import cgroups, contract, hooks, syscalls
from ebpf.maps import Map
from ebpf.node import Capture, NotLoaded
from tests.ebpf.stage import LOADER, ROOT, load, loader, new_cgroup, two_pods, unique_name

pytestmark = pytest.mark.root

Place = tuple[Path, Path]


@pytest.fixture
def place() -> Iterator[Place]:
    """A directory for pins that is not there yet, and a cgroup."""
    name = unique_name()
    pins = Path("/sys/fs/bpf") / name
    with new_cgroup(name) as cgroup:
        try:
            yield pins, cgroup
        finally:
            loader("unload", "--pins", str(pins))


def try_to_load(pins: Path, cgroup: Path, **environment: str) -> Any:
    return loader("load", "--pins", str(pins), "--cgroup", str(cgroup), **environment)


def status(pins: Path) -> Any:
    return json.loads(loader("status", "--pins", str(pins)).stdout)


def assert_refused(done: Any, code: int, *words: str) -> None:
    """One sentence on stderr, no traceback, and the exit code."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_load_and_unload(place: Place) -> None:
    pins, cgroup = place
    load(pins, cgroup)
    links = status(pins)["links"]
    assert len(links) == len(hooks.CGROUP_HOOKS)
    assert {link["target"] for link in links.values()} == {cgroups.cgroup_id(cgroup)}
    assert loader("unload", "--pins", str(pins)).returncode == 0
    assert not pins.exists()
    again = loader("unload", "--pins", str(pins))
    assert (again.returncode, again.stdout) == (0, f"nothing is loaded at {pins}\n")


def test_loading_again_keeps_maps_and_links_and_swaps_programs(place: Place) -> None:
    pins, cgroup = place
    load(pins, cgroup)
    Capture.open(pins).enrol(4711)
    before, links = status(pins)["links"], link_ids(pins)
    load(pins, cgroup)
    after = status(pins)["links"]
    assert Capture.open(pins).enrolled() == {4711}
    assert link_ids(pins) == links
    assert all(after[name]["program"] != before[name]["program"] for name in before)


def link_ids(pins: Path) -> dict[str, int]:
    ids = {}
    for pin in (pins / "links").iterdir():
        link = syscalls.get(pin)
        ids[pin.name] = syscalls.link_info(link).id
        os.close(link)
    return ids


def test_inbound_links_get_the_new_program_and_those_of_dead_pods_go(place: Place) -> None:
    pins, cgroup = place
    load(pins, cgroup)
    capture = Capture.open(pins)
    with two_pods(unique_name()) as (alive, dead):
        for pod, name in ((alive, "alive"), (dead, "dead")):
            netns = os.open(pod.netns, os.O_RDONLY)
            capture.attach_inbound(netns, name)
            os.close(netns)
        before = status(pins)["inbound"]
        subprocess.run(["ip", "netns", "del", dead.netns.name], check=True)
        wait_until_gone(pins / "inbound" / "dead")
        load(pins, cgroup)
        after = status(pins)["inbound"]
    assert set(after) == {"alive"}
    assert after["alive"]["program"] != before["alive"]["program"]


def wait_until_gone(pin: Path) -> None:
    """The kernel takes network namespaces down in the background."""
    link = syscalls.get(pin)
    while syscalls.link_info(link).target:
        os.sched_yield()
    os.close(link)


def test_two_nodes_may_share_a_cgroup(place: Place) -> None:
    """Other agents' programs on the same cgroup go on."""
    pins, cgroup = place
    other = pins.with_name(unique_name())
    load(pins, cgroup)
    load(other, cgroup)
    assert loader("unload", "--pins", str(other)).returncode == 0
    assert {link["target"] for link in status(pins)["links"].values()} == {cgroups.cgroup_id(cgroup)}


def test_two_loaders_at_once(place: Place) -> None:
    pins, cgroup = place
    command = [*LOADER, "load", "--pins", str(pins), "--cgroup", str(cgroup)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(2)]
    assert [each.wait(60) for each in both] == [0, 0]
    said = sorted(each.communicate()[0].split()[0] for each in both)
    assert said == [b"loaded", b"swapped"]
    assert len(status(pins)["links"]) == len(hooks.CGROUP_HOOKS)


# --- what earlier runs left


@pytest.mark.parametrize(
    "lost", [["links", "programs", "maps/enrolled", "maps/in_flight"], ["links"], ["links/connect4"]]
)
def test_a_half_finished_run_is_repaired(place: Place, lost: list[str]) -> None:
    pins, cgroup = place
    load(pins, cgroup)
    for name in lost:
        remove(pins / name)
    load(pins, cgroup)
    assert len(status(pins)["links"]) == len(hooks.CGROUP_HOOKS)
    Capture.open(pins).close()


def test_pins_without_a_name_yet_are_removed(place: Place) -> None:
    """A process was killed between pinning and renaming."""
    pins, cgroup = place
    load(pins, cgroup)
    link = syscalls.get(pins / "links" / "connect4")
    for left in (pins / "links" / "connect4-next", pins / "inbound" / "pod-next"):
        syscalls.pin(link, left)
    os.close(link)
    assert Capture.open(pins).attached_inbound() == frozenset()
    load(pins, cgroup)
    assert not list(pins.glob("*/*-next"))


def remove(path: Path) -> None:
    if path.is_dir():
        for pin in path.iterdir():
            pin.unlink()
        path.rmdir()
    else:
        path.unlink()


@pytest.mark.parametrize("after", [0.4, 0.9])
def test_a_killed_loader_is_repaired(place: Place, after: float) -> None:
    """Wherever it was: the moment is not chosen, and does not matter."""
    pins, cgroup = place
    victim = subprocess.Popen([*LOADER, "load", "--pins", str(pins), "--cgroup", str(cgroup)], cwd=ROOT)
    try:
        victim.wait(after)
    except subprocess.TimeoutExpired:
        victim.kill()
        victim.wait()
    load(pins, cgroup)
    assert len(status(pins)["links"]) == len(hooks.CGROUP_HOOKS)


def test_pins_of_a_crashed_run_whose_cgroup_is_gone(place: Place) -> None:
    pins, cgroup = place
    with new_cgroup(unique_name()) as former:
        load(pins, former)
        Capture.open(pins).enrol(4711)
    load(pins, cgroup)
    assert {link["target"] for link in status(pins)["links"].values()} == {cgroups.cgroup_id(cgroup)}
    assert Capture.open(pins).enrolled() == frozenset()


def test_moving_to_another_cgroup(place: Place) -> None:
    pins, cgroup = place
    with new_cgroup(unique_name()) as former:
        load(pins, former)
        load(pins, cgroup)
        assert {link["target"] for link in status(pins)["links"].values()} == {cgroups.cgroup_id(cgroup)}


def test_maps_of_another_version_are_not_touched(place: Place) -> None:
    pins, cgroup = place
    load(pins, cgroup)
    Capture.open(pins).enrol(4711)
    version = Map.open(pins / "maps" / "contract")
    version.update(bytes(4), (99).to_bytes(4, sys.byteorder))
    before = status(pins)
    assert_refused(try_to_load(pins, cgroup), 78, "contract version 99", "unload them first")
    assert status(pins) == before
    with pytest.raises(NotLoaded, match="another version"):
        Capture.open(pins)
    assert loader("unload", "--pins", str(pins)).returncode == 0
    load(pins, cgroup)


def test_maps_of_another_layout_are_not_touched(place: Place) -> None:
    pins, cgroup = place
    load(pins, cgroup)
    (pins / "maps" / "enrolled").unlink()
    other = syscalls.create_map(contract.HASH, 8, 8, 16)
    syscalls.pin(other, pins / "maps" / "enrolled")
    os.close(other)
    assert_refused(try_to_load(pins, cgroup), 78, "enrolled has another layout")


# --- what it says when it cannot


def test_not_root(place: Place) -> None:
    pins, cgroup = place
    for command in (["load", "--pins", str(pins), "--cgroup", str(cgroup)], ["unload", "--pins", str(pins)]):
        done = subprocess.run(
            [*LOADER, *command], cwd=ROOT, user=65534, group=65534, extra_groups=[], capture_output=True, text=True
        )
        assert_refused(done, 77, "root")


def test_no_such_cgroup(place: Place) -> None:
    pins, cgroup = place
    assert_refused(try_to_load(pins, cgroup / "nowhere"), 78, str(cgroup / "nowhere"))
    assert not pins.exists()


def test_not_a_cgroup(place: Place, tmp_path: Path) -> None:
    pins, _ = place
    assert_refused(try_to_load(pins, tmp_path), 78, str(tmp_path), "not a cgroup v2", str(cgroups.cgroup2_root()))
    assert not pins.exists()


def test_pins_on_no_bpffs(place: Place, tmp_path: Path) -> None:
    _, cgroup = place
    assert_refused(try_to_load(tmp_path / "pins", cgroup), 78, "not on a bpffs", "/sys/fs/bpf")
    assert not (tmp_path / "pins").exists()


@pytest.mark.parametrize("name", ["node.example", "../etc", 'quo"te'])
def test_names_that_cannot_be_pinned(place: Place, name: str) -> None:
    pins, cgroup = place
    assert_refused(try_to_load(pins / name, cgroup), 78, name)


def test_no_kernel_headers(place: Place) -> None:
    pins, cgroup = place
    done = try_to_load(pins, cgroup, BCC_KERNEL_SOURCE="/nowhere")
    assert_refused(done, 69, "/nowhere", "apt-get install linux-headers-amd64")
    assert not pins.exists()


def test_broken_kernel_headers(place: Place, tmp_path: Path) -> None:
    pins, cgroup = place
    assert_refused(try_to_load(pins, cgroup, BCC_KERNEL_SOURCE=str(tmp_path)), 70, "do not compile")
    assert not pins.exists()


def test_an_interpreter_without_bcc(place: Place) -> None:
    pins, cgroup = place
    command = [sys.executable, "-m", "ebpf.loader", "load", "--pins", str(pins), "--cgroup", str(cgroup)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert_refused(done, 69, sys.executable, "/usr/bin/python3")
    assert not pins.exists()


def test_bad_arguments() -> None:
    assert loader("load").returncode == 64
    assert loader("explode", "--pins", "/sys/fs/bpf/x").returncode == 64


def test_a_bpffs_is_mounted_where_there_is_none(place: Place) -> None:
    """In a mount namespace of its own, which takes all with it."""
    _, cgroup = place
    pins = "/sys/fs/bpf/ambit-test-mount"
    script = f"umount /sys/fs/bpf; {' '.join(LOADER)} load --pins {pins} --cgroup {cgroup} && ls {pins}/links | wc -l"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(len(hooks.CGROUP_HOOKS))


def test_capture_says_that_nothing_is_loaded(place: Place) -> None:
    with pytest.raises(NotLoaded, match=str(place[0])):
        Capture.open(place[0])
