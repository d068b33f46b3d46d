"""What Ambit does on Debian 12's own kernel, and what it says on one that is too old.

The tests run only where `make test-kernels` has put the emulator and the kernels; they download nothing.
"""

from __future__ import annotations

import pytest

from ebpf.hooks import HOOKS
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
    assert lines[0].startswith(f"loaded {len(HOOKS)} programs")
    assert lines[1].startswith(f"swapped {len(HOOKS)} programs")
    assert lines[2] == "unloaded /sys/fs/bpf/ambit"


def test_capture(bookworm: machine.Kernel) -> None:
    """Dials, deliveries, DNS and what is left of them, by the same tests as on this machine's kernel.

    Swaps under load are not among them: their clients never pause, and on one emulated processor the loader starves.
    """
    areas = ("outbound", "inbound", "dns", "odd_sockets", "exempt", "refusal", "places", "leaks")
    done = machine.run(bookworm, [*PYTEST, *(f"tests/ebpf/test_{area}.py" for area in areas)], timeout=15 * MINUTE)
    assert done.status == 0, done.output


def test_a_local_mesh(bookworm: machine.Kernel) -> None:
    """Two nodes come up, take a label, and leave nothing."""
    ambit = ".venv/bin/python -m cli local"
    label = "label namespace default istio.io/dataplane-mode=ambient"
    done = machine.run(
        bookworm,
        ["/bin/sh", "-c", f"{ambit} up --nodes 2 && {ambit} {label} && {ambit} down && ls /sys/fs/bpf/ /run/netns/"],
        timeout=15 * MINUTE,
    )
    assert done.status == 0, done.output
    assert "A mesh of 2 nodes is up" in done.output
    assert "node1" not in done.output.partition("/sys/fs/bpf/:")[2]


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
