"""What this machine has of what the capture needs, asked of the machine itself and not of its version number.

Each feature that is missing comes with one sentence on what to do about it.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ebpf import cgroups, contract, hooks, syscalls
from ebpf.hooks import Hook
from ebpf.pins import BPFFS

SYSTEM_PYTHON = Path("/usr/bin/python3")  # the only interpreter that Debian's python3-bpfcc serves
KERNEL_HEADERS_IN_KERNEL = Path("/sys/kernel/kheaders.tar.xz")
FILESYSTEMS = Path("/proc/filesystems")

# Machine code of a program that returns 1, and of one that first asks for its socket's netns cookie.
RETURN_ONE = bytes.fromhex("b7000000010000009500000000000000")
GET_NETNS_COOKIE = bytes.fromhex("850000007a000000")  # call 122


@dataclass(frozen=True, slots=True)
class Feature:
    name: str
    present: bool
    remedy: str  # a sentence, for when it is missing


def inspect() -> list[Feature]:
    """All features, in the order in which their absence should be told. Without root only some can be asked for."""
    root = Feature("root privilege", os.geteuid() == 0, "run it as root: only root may load eBPF programs")
    machine = [cgroup2(), bpffs(), headers(), bcc()]
    return [root, *(machine if not root.present else [*machine[:2], *kernel(), *machine[2:]])]


def missing() -> list[Feature]:
    return [feature for feature in inspect() if not feature.present]


def kernel() -> Iterator[Feature]:
    for hook in hooks.HOOKS:
        yield kernel_feature(f"{hook.name} programs", hook.since, accepts(hook))
    cookie = accepts(hooks.CGROUP_HOOKS[0], GET_NETNS_COOKIE + RETURN_ONE)
    yield kernel_feature("netns cookies in sockops programs", "5.15", cookie)
    yield kernel_feature("socket hash maps", "4.18", works(lambda: syscalls.create_map(contract.SOCKHASH, 4, 8, 1)))


def kernel_feature(name: str, since: str, present: bool) -> Feature:
    release = platform.release()
    return Feature(name, present, f"kernel {release} has no {name}: Linux has them since {since}; use 6.1 or newer")


def accepts(hook: Hook, code: bytes = RETURN_ONE) -> bool:
    """Whether the kernel loads a program for this place."""
    return works(lambda: syscalls.load_program(hook.program_type, hook.expected_attach_type, code))


def works(attempt: Callable[[], int]) -> bool:
    try:
        os.close(attempt())
    except OSError:
        return False
    return True


def cgroup2() -> Feature:
    try:
        cgroups.cgroup2_root()
    except cgroups.NoCgroup2 as problem:
        return Feature("cgroup v2", False, str(problem))
    return Feature("cgroup v2", True, "")


def bpffs() -> Feature:
    known = any(line.split()[-1:] == ["bpf"] for line in FILESYSTEMS.read_text().splitlines())
    return Feature(
        "bpffs", known and BPFFS.is_dir(), f"this kernel cannot mount a bpffs at {BPFFS}: it needs CONFIG_BPF_SYSCALL"
    )


def headers() -> Feature:
    release = platform.release()
    build = Path(os.environ.get("BCC_KERNEL_SOURCE") or f"/lib/modules/{release}/build")
    remedy = (
        f"there are no kernel headers at {build}: apt-get install linux-headers-amd64, and if that is for another "
        f"kernel, ln -s /usr/src/linux-headers-<version>-amd64 /lib/modules/{release}/build"
    )
    return Feature("kernel headers", build.exists() or KERNEL_HEADERS_IN_KERNEL.exists(), remedy)


def bcc() -> Feature:
    found = "import importlib.util, sys; sys.exit(importlib.util.find_spec('bcc') is None)"
    present = SYSTEM_PYTHON.exists() and subprocess.run([SYSTEM_PYTHON, "-c", found], check=False).returncode == 0
    return Feature("BCC", present, f"{SYSTEM_PYTHON} cannot import bcc: apt-get install python3-bpfcc")
