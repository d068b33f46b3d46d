"""Loads, swaps and removes the programs of a node: /usr/bin/python3 -m ebpf.loader load|unload|status --pins DIR.

Short-lived: it compiles with BCC (which no other module imports), pins maps, programs and links, and exits. What it
left works on by itself. Loading again keeps the maps and swaps each program in its link, so that no connection slips
through between. Exit codes are those of sysexits.h.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from ebpf import cgroups, contract, features, hooks, source, syscalls
from ebpf.hooks import Hook
from ebpf.maps import Map
from ebpf.pins import BPFFS, Pins, names, replace

AUTO = "auto"
EX_USAGE, EX_UNAVAILABLE, EX_SOFTWARE, EX_NOPERM, EX_CONFIG = 64, 69, 70, 77, 78


class LoadFailed(Exception):
    """One sentence, and the exit code that goes with it."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def load(pins: Pins, cgroup: Path, node_cgroup: Path | None = None) -> str:
    """Everything that `load` does. Returns what to tell."""
    require_features()
    for place in (cgroup, *([node_cgroup] if node_cgroup else [])):
        require_cgroup(place)
    mount_bpffs()
    require_bpffs(pins)
    pins.root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with pins.locked(exclusive=True):
        standing = repair(pins)
        pins.make()
        try:
            programs = compile_programs(pins)
            write_version(pins)
            attach(pins, programs, cgroup, node_cgroup)
        except BaseException:
            if not standing:
                pins.remove()
            raise
        for program in programs.values():
            os.close(program)
    done = "swapped" if standing else "loaded"
    return f"{done} {len(programs)} programs, attached to {cgroup}, pinned at {pins.root}"


def unload(pins: Pins) -> str:
    if not pins.root.exists():
        return f"nothing is loaded at {pins.root}"
    with pins.locked(exclusive=True):
        for link in sorted(pins.links.glob("*")) + sorted(pins.inbound.glob("*")):
            detach(link)
        pins.remove()
    return f"unloaded {pins.root}"


def status(pins: Pins) -> str:
    """As JSON: per link the program it runs and its target (0: gone), and how many entries each map has."""
    described = {"pins": str(pins.root), "links": {}, "inbound": {}, "maps": {}}
    for place, directory in (("links", pins.links), ("inbound", pins.inbound)):
        for name in names(directory):
            link = syscalls.get(directory / name)
            info = syscalls.link_info(link)
            os.close(link)
            described[place][name] = {"program": info.program_id, "target": info.target}  # type: ignore[index]
    for name in names(pins.maps):
        if name in contract.MAPS and contract.MAPS[name].type != contract.SOCKET_STORAGE:
            described["maps"][name] = len(Map.open(pins.maps / name).snapshot())  # type: ignore[index]
    return json.dumps(described, indent=2)


# --- before anything is touched


def require_root() -> None:
    if os.geteuid() != 0:
        raise LoadFailed(EX_NOPERM, "run it as root: only root may load eBPF programs")


def require_features() -> None:
    for feature in features.missing():
        raise LoadFailed(EX_UNAVAILABLE, f"{feature.name} is missing: {feature.remedy}")


def groups(chosen: argparse.Namespace) -> tuple[Path, Path | None]:
    """Where the capture and where the hook of the node's own processes goes."""
    try:
        cgroups.enter_host_view()
        pods = cgroups.kubepods() if chosen.cgroup == Path(AUTO) else chosen.cgroup
        node = chosen.node_cgroup or (Path(AUTO) if chosen.cgroup == Path(AUTO) else None)
        return pods, cgroups.cgroup2_root() if node == Path(AUTO) else node
    except (cgroups.NoCgroup2, cgroups.NoKubepods) as problem:
        raise LoadFailed(EX_CONFIG, str(problem)) from problem


def require_cgroup(cgroup: Path) -> None:
    if not cgroup.is_dir():
        raise LoadFailed(EX_CONFIG, f"there is no cgroup {cgroup}")
    if syscalls.filesystem_magic(cgroup) != syscalls.CGROUP2_MAGIC:
        raise LoadFailed(EX_CONFIG, f"{cgroup} is not a cgroup v2 directory: those are below {cgroups.cgroup2_root()}")


def mount_bpffs() -> None:
    """Mounts one at its usual place, once: a second on top would hide the pins of the first."""
    directory = os.open(BPFFS, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if syscalls.filesystem_magic(BPFFS) != syscalls.BPFFS_MAGIC:
            syscalls.mount("bpf", BPFFS)
    finally:
        os.close(directory)


def require_bpffs(pins: Pins) -> None:
    nearest = next(place for place in (pins.root, *pins.root.parents) if place.exists())
    if syscalls.filesystem_magic(nearest) != syscalls.BPFFS_MAGIC:
        raise LoadFailed(EX_CONFIG, f"{pins.root} is not on a bpffs: choose a directory below {BPFFS}")


# --- what an earlier run left


def repair(pins: Pins) -> bool:
    """Whether a working earlier load stands. What a run left half done, or what captures nothing, is cleared away."""
    captures = [hook.name for hook in hooks.CGROUP_HOOKS if (pins.links / hook.name).exists()]
    alive = any(is_alive(pins.links / name) for name in captures)
    problem = layout_problem(pins)
    if problem and alive:
        raise LoadFailed(EX_CONFIG, f"the maps at {pins.root} do not fit these programs ({problem}): unload them first")
    if not alive:
        pins.clear()
    pins.remove_unnamed()
    return alive


def is_alive(pin: Path) -> bool:
    link = syscalls.get(pin)
    try:
        return syscalls.link_info(link).target != 0
    finally:
        os.close(link)


def layout_problem(pins: Pins) -> str:
    """How the pinned maps differ from the contract; empty if they do not."""
    for name, layout in contract.MAPS.items():
        if not (pins.maps / name).exists():
            return f"{name} is missing"
        pinned = Map.open(pins.maps / name)
        info = pinned.info
        version = pinned.lookup(bytes(4)) if name == "contract" else None
        pinned.close()
        if (info.type, info.key_size, info.value_size, info.entries) != tuple(
            getattr(layout, field) for field in ("type", "key_size", "value_size", "entries")
        ):
            return f"{name} has another layout"
        if version is not None and int.from_bytes(version, sys.byteorder) != contract.CONTRACT_VERSION:
            return f"contract version {int.from_bytes(version, sys.byteorder)}, not {contract.CONTRACT_VERSION}"
    return ""


# --- the work


def compile_programs(pins: Pins) -> dict[str, int]:
    """Descriptors of the loaded programs, by name. Maps that are not pinned yet are made and pinned on the way."""
    try:
        from bcc import BPF  # takes 0.3 s and 70 MB, which `status` and `unload` need not pay
    except ImportError as problem:
        reason = f"{sys.executable} cannot import bcc: run the loader with {features.SYSTEM_PYTHON}"
        raise LoadFailed(EX_UNAVAILABLE, reason) from problem
    with captured_output() as messages:
        try:
            compiled = BPF(text=source.translation_unit(), cflags=source.flags(pins.root))
        except Exception as problem:
            raise LoadFailed(EX_SOFTWARE, f"the programs do not compile: {last_line(messages, problem)}") from problem
        programs = {}
        for hook in hooks.HOOKS:
            try:
                loaded = compiled.load_func(hook.name, hook.program_type, attach_type=hook.expected_attach_type)
            except Exception as problem:
                reason = last_line(messages, problem)
                raise LoadFailed(EX_SOFTWARE, f"the kernel refuses the program {hook.name}: {reason}") from problem
            programs[hook.name] = os.dup(loaded.fd)
    return programs


def write_version(pins: Pins) -> None:
    version = Map.open(pins.maps / "contract")
    version.update(bytes(4), contract.CONTRACT_VERSION.to_bytes(4, sys.byteorder))
    version.close()


def attach(pins: Pins, programs: dict[str, int], cgroup: Path, node_cgroup: Path | None) -> None:
    """Pins the programs, and brings each link to the new program."""
    for name, program in programs.items():
        replace(program, pins.programs / name)
    attach_all(pins, programs, hooks.CGROUP_HOOKS, cgroup)
    if node_cgroup is not None:
        attach_all(pins, programs, (hooks.NODE,), node_cgroup)
    elif (pins.links / hooks.NODE.name).exists():
        detach(pins.links / hooks.NODE.name)
        (pins.links / hooks.NODE.name).unlink()
    for name in names(pins.inbound):
        swap_inbound(pins.inbound / name, programs[hooks.INBOUND.name])


def attach_all(pins: Pins, programs: dict[str, int], places: tuple[Hook, ...], cgroup: Path) -> None:
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for hook in places:
            attach_to_cgroup(pins.links / hook.name, programs[hook.name], hook, directory)
    finally:
        os.close(directory)


def attach_to_cgroup(pin: Path, program: int, hook: Hook, cgroup: int) -> None:
    """Swaps in place; a link to another cgroup gives way to a new one, which is attached before it goes."""
    if pin.exists():
        standing = syscalls.get(pin)
        try:
            if syscalls.link_info(standing).target == os.fstat(cgroup).st_ino:
                return syscalls.link_update(standing, program)
        finally:
            os.close(standing)
    link = syscalls.link_create(program, cgroup, hook.attach_type)
    replace(link, pin)
    os.close(link)


def swap_inbound(pin: Path, program: int) -> None:
    link = syscalls.get(pin)
    try:
        if syscalls.link_info(link).target:
            syscalls.link_update(link, program)
        else:
            pin.unlink()  # its pod is gone
    finally:
        os.close(link)


def detach(pin: Path) -> None:
    """At once, whoever else holds the link."""
    link = syscalls.get(pin)
    try:
        if syscalls.link_info(link).target:
            syscalls.link_detach(link)
    finally:
        os.close(link)


# --- the command line


@contextmanager
def captured_output() -> Iterator[int]:
    """The compiler and the verifier write pages; what matters of them goes into one sentence."""
    kept, messages = {stream: os.dup(stream) for stream in (1, 2)}, os.memfd_create("messages")
    for stream in kept:
        os.dup2(messages, stream)
    try:
        yield messages
    finally:
        syscalls.libc.fflush(None)
        for stream, original in kept.items():
            os.dup2(original, stream)
            os.close(original)
        os.close(messages)


def last_line(messages: int, problem: Exception) -> str:
    """The line that says what is wrong: the compiler's first error, else the verifier's last word."""
    text = os.pread(messages, 1 << 24, 0).decode(errors="replace")
    lines = [line for line in text.splitlines() if line and not line.startswith(("processed ", ";", "libbpf"))]
    errors = [line for line in lines if "error:" in line]
    return (errors[:1] or lines[-1:] or [str(problem)])[0]


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(EX_USAGE, f"ebpf.loader: {message}\n")


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="ebpf.loader", description="load, swap or remove the eBPF programs of a node")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("load", "unload", "status"):
        command = commands.add_parser(name)
        command.add_argument("--pins", type=Path, required=True, help="directory on a bpffs, one per node")
        if name == "load":
            command.add_argument(
                "--cgroup",
                type=Path,
                required=True,
                help=f"cgroup v2 directory above all pods and ztunnel; {AUTO}: the kubelet's, looked for",
            )
            command.add_argument(
                "--node-cgroup",
                type=Path,
                help="cgroup v2 directory above the node's own processes: what they dial (probes) reaches "
                f"captured pods past ztunnel; {AUTO}: the root of all, also without this option if --cgroup is {AUTO}",
            )
    return parser.parse_args(argv)


def run(argv: list[str]) -> str:
    chosen = arguments(argv)
    require_root()
    pins = Pins(chosen.pins)
    if chosen.command == "load":
        return load(pins, *groups(chosen))
    return unload(pins) if chosen.command == "unload" else status(pins)


def main(argv: list[str]) -> int:
    try:
        print(run(argv))
    except LoadFailed as problem:
        print(f"ebpf.loader: {problem}", file=sys.stderr)
        return problem.code
    except (OSError, ValueError) as problem:
        print(f"ebpf.loader: {problem}", file=sys.stderr)
        return EX_CONFIG if isinstance(problem, ValueError) else EX_SOFTWARE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
