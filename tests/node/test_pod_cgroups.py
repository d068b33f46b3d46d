"""Names of pods' cgroups, as kubelets and runtimes really give them."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.node.pod_cgroups import CLASSES, Candidate, choose, places, pod_of
from ebpf import cgroups

UID = "8dbc33a1-6d1f-4a58-b0b4-7c1d4e0a2f55"
STATIC = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
ID = "4f" * 32

CONTAINERD = {
    "cgroupfs": f"/kubepods/burstable/pod{UID}/{ID}",
    "systemd": f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
    f"/cri-containerd-{ID}.scope",
}
CRI_O = {
    "cgroupfs": f"/kubepods/besteffort/pod{UID}/crio-{ID}",
    "systemd": f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID.replace('-', '_')}.slice"
    f"/crio-{ID}.scope/container",
}
GUARANTEED = (
    f"/kubepods/pod{UID}/{ID}",
    f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/crio-conmon-{ID}.scope",
)
NESTED = (  # a kubelet with a cgroupRoot of its own, as in kind; and a process that is in a sibling's namespace
    f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice"
    f"/kubelet-kubepods-burstable-pod{UID.replace('-', '_')}.slice/cri-containerd-{ID}.scope",
    f"/kubelet/kubepods/burstable/pod{UID}/{ID}/init.scope",
    f"/../pod{UID}/{ID}",
)
NOBODYS = (
    "/",
    "/system.slice/containerd.service",
    "/kubepods",
    "/kubepods.slice/kubepods-burstable.slice",
    f"/user.slice/{ID}",
    "/kubepods/burstable/podcast",
    f"/kubepods/xpod{UID}",
    f"/kubepods/pod{UID}x",
)

uids = st.uuids().map(str) | st.binary(min_size=16, max_size=16).map(bytes.hex)
roots = st.sampled_from(["kubepods", "kubepods.slice", "kubelet-kubepods.slice", "a-b-kubepods.slice"])


@pytest.mark.parametrize("path", [*CONTAINERD.values(), *CRI_O.values(), *GUARANTEED, *NESTED])
def test_a_container_is_its_pods(path: str) -> None:
    assert pod_of(path) == UID


@pytest.mark.parametrize("path", NOBODYS)
def test_nobodys(path: str) -> None:
    assert pod_of(path) is None


def test_a_static_pod() -> None:
    assert pod_of(f"/kubepods/burstable/pod{STATIC}/{ID}") == STATIC


@given(roots, uids, st.text(st.characters(codec="utf-8", exclude_characters="\n")))
def test_where_a_pod_is_looked_for_is_where_it_is_recognised(root: str, uid: str, inside: str) -> None:
    found = places(root, uid)
    assert len(set(found)) == len(CLASSES)
    for place in found:
        assert pod_of(f"/{root}/{place}/{inside}") == uid


@given(uids, uids)
def test_a_pod_cannot_call_itself_another(own: str, other: str) -> None:
    """It may make groups inside its own, with any name."""
    for place in places("kubepods", own):
        for pretended in places("kubepods.slice", other):
            assert pod_of(f"/kubepods/{place}/{ID}/kubepods.slice/{pretended}/x") == own


@given(st.text())
def test_any_text_is_a_path(text: str) -> None:
    found = pod_of(text)
    assert found is None or UUID(found)


# --- the group of all pods


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CONTAINERD["cgroupfs"], "/kubepods"),
        (CONTAINERD["systemd"], "/kubepods.slice"),
        (NESTED[0], "/kubelet.slice/kubelet-kubepods.slice"),
        (f"/machines/node2/kubepods/burstable/pod{UID}", "/machines/node2/kubepods"),
        ("/system.slice/kubelet.service", None),
        ("/", None),
    ],
)
def test_the_group_above(path: str, expected: str | None) -> None:
    assert cgroups.kubepods_above(path) == expected


def test_the_only_group_there_is(tmp_path: Path) -> None:
    place = tmp_path / "kubelet.slice" / "kubelet-kubepods.slice"
    (place / "kubelet-kubepods-burstable.slice").mkdir(parents=True)
    (tmp_path / "system.slice" / "ssh.service").mkdir(parents=True)
    assert cgroups.kubepods(tmp_path, "/system.slice/x") == place


def test_its_own_group_counts_before_others(tmp_path: Path) -> None:
    for node in ("node1", "node2"):
        (tmp_path / node / "kubepods").mkdir(parents=True)
    own = f"/node2/kubepods/besteffort/pod{UID}/{ID}"
    assert cgroups.kubepods(tmp_path, own) == tmp_path / "node2" / "kubepods"
    with pytest.raises(cgroups.NoKubepods, match=r"2 groups of pods.*name the one"):
        cgroups.kubepods(tmp_path, "/")


def test_no_group(tmp_path: Path) -> None:
    with pytest.raises(cgroups.NoKubepods, match="no group of pods"):
        cgroups.kubepods(tmp_path, "/")


# --- which process shows where a pod is

HOST, PODS, ELSEWHERE = (4, 1), (4, 2), (4, 3)
candidates = st.builds(Candidate, st.integers(2, 9), st.integers(0, 9), st.sampled_from([HOST, PODS, ELSEWHERE]))


def test_the_first_process_of_the_pod() -> None:
    conmon, pause, app = Candidate(7, 1, HOST), Candidate(8, 2, PODS), Candidate(9, 3, ELSEWHERE)
    assert choose([app, pause, conmon], frozenset({HOST})) == pause
    assert choose([conmon], frozenset({HOST})) is None
    assert choose([], frozenset()) is None


@given(st.lists(candidates))
def test_never_the_host_and_never_a_later_one(found: list[Candidate]) -> None:
    chosen = choose(found, frozenset({HOST}))
    inside = [each for each in found if each.netns != HOST]
    assert (chosen is None) == (not inside)
    assert chosen is None or (chosen.netns != HOST and chosen.started == min(each.started for each in inside))
