"""What Ambit does on Debian 12's own kernel, and what it says on one that is too old.

The tests run only where `make test-kernels` has put the emulator and the kernels; they download nothing.
"""

from __future__ import annotations

import pytest

from tests.kernels import machine

MINUTE = 60.0
PYTEST = (".venv/bin/python", "-m", "pytest", "-p", "no:cacheprovider", "-q")
LOADER = "/usr/bin/python3 -m ebpf.loader"
PREPARED = "mkdir /sys/fs/cgroup/ambit && mount -t bpf bpf /sys/fs/bpf &&"
PLACE = "--pins /sys/fs/bpf/ambit"

pytestmark = [pytest.mark.root, pytest.mark.timeout(30 * MINUTE)]


@pytest.fixture
def bookworm() -> machine.Kernel:
    return kernel("bookworm")


@pytest.fixture
def bullseye() -> machine.Kernel:
    return kernel("bullseye")


def kernel(debian: str) -> machine.Kernel:
    try:
        return machine.find(debian)
    except machine.NotHere as problem:
        pytest.skip(str(problem))


def script(on: machine.Kernel, text: str) -> machine.Done:
    return machine.run(on, ["/bin/sh", "-c", text], timeout=5 * MINUTE)


def test_the_guest_runs_the_kernel_it_should(bookworm: machine.Kernel) -> None:
    done = script(bookworm, "uname -r; exit 7")
    assert (done.output.split()[0], done.status) == (bookworm.release, 7)


def test_the_programs_load_and_leave(bookworm: machine.Kernel) -> None:
    done = script(
        bookworm,
        f"{PREPARED} {LOADER} load {PLACE} --cgroup /sys/fs/cgroup/ambit && {LOADER} load {PLACE} --cgroup "
        f"/sys/fs/cgroup/ambit && {LOADER} unload {PLACE} && ls -A /sys/fs/bpf",
    )
    lines = done.output.splitlines()
    assert done.status == 0, done.output
    assert lines[0].startswith("loaded 10 programs")
    assert lines[1].startswith("swapped 10 programs")
    assert lines[2] == "unloaded /sys/fs/bpf/ambit"


def test_capture(bookworm: machine.Kernel) -> None:
    """Dials, deliveries, DNS and what is left of them, by the same tests as on this machine's kernel."""
    areas = ("outbound", "inbound", "dns", "odd_sockets", "exempt", "refusal", "swap", "places", "leaks")
    done = machine.run(bookworm, [*PYTEST, *(f"tests/ebpf/test_{area}.py" for area in areas)], timeout=15 * MINUTE)
    assert done.status == 0, done.output


def test_a_local_mesh(bookworm: machine.Kernel) -> None:
    """Two nodes, the label put on and taken off under standing connections, and paths between pods."""
    stories = (
        "test_labels.py::test_connections_outlive_the_label_in_both_directions",
        "test_paths.py::test_enrolled_to_enrolled",
    )
    done = machine.run(bookworm, [*PYTEST, *(f"tests/scenarios/{story}" for story in stories)], timeout=25 * MINUTE)
    assert done.status == 0, done.output


def test_a_kernel_that_is_too_old_is_told_so(bullseye: machine.Kernel) -> None:
    done = script(bullseye, f"{PREPARED} {LOADER} load {PLACE} --cgroup /sys/fs/cgroup/ambit")
    assert done.output.splitlines()[0] == (
        f"ebpf.loader: netns cookies in sockops programs is missing: kernel {bullseye.release} has no netns cookies in "
        "sockops programs: Linux has them since 5.15; use 6.1 or newer"
    )
    assert done.status == 69


def test_a_machine_without_cgroup2_is_told_so(bookworm: machine.Kernel) -> None:
    done = script(bookworm, f"umount /sys/fs/cgroup && {LOADER} load {PLACE} --cgroup /sys/fs/cgroup/ambit")
    assert done.output.splitlines()[0] == (
        "ebpf.loader: cgroup v2 is missing: cgroup v2 is not mounted; mount it with: mount -t cgroup2 none "
        "/sys/fs/cgroup/unified"
    )
    assert done.status == 69
