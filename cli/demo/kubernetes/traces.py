"""What Ambit leaves on a node, read from the node itself and from the kernel: compared before and after."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebpf import syscalls
from ebpf.hooks import CGROUP_HOOKS, INBOUND, NODE

FILES = ("etc/cni/net.d", "opt/cni/bin", "run/ambit", "var/lib/ambit")
PINS = "sys/fs/bpf"
LOCKS = ("cni.lock",)  # of the container runtime and of installers: empty, and said to be harmless when left


@dataclass(frozen=True)
class Node:
    """`root`: its file system, as this machine sees it; `pods`: the cgroup above all its pods."""

    name: str
    root: Path
    pods: Path
    namespaces: Path  # a file for each network namespace of a pod

    @classmethod
    def of(cls, name: str, paths: Mapping[str, Any]) -> Node:
        """`paths`: what `python -m tests.cluster paths NAME --json` says."""
        root = Path(paths["root"])
        return cls(name, root, Path(paths["machine_cgroup_root"]), root / paths["netns_directory"].lstrip("/"))


def traces(node: Node) -> Mapping[str, str]:
    """Every file where Ambit writes, and every place in the kernel where a program is attached."""
    return dict([*_files(node), *_programs(node)])


def _files(node: Node) -> Iterator[tuple[str, str]]:
    for place in FILES:
        for path in sorted((node.root / place).rglob("*")):
            if path.is_file() and path.name not in LOCKS:
                yield str(path.relative_to(node.root)), _content(path)
    for path in sorted((node.root / PINS).rglob("*")):
        yield str(path.relative_to(node.root)), "pinned"


def _content(path: Path) -> str:
    """What a file means: JSON that is only indented otherwise is the same."""
    content = path.read_bytes()
    if path.suffix in (".conf", ".conflist", ".json"):
        content = json.dumps(json.loads(content), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _programs(node: Node) -> Iterator[tuple[str, str]]:
    for hook in CGROUP_HOOKS:
        yield from _attached(node.pods, hook.name, hook.attach_type)
    yield from _attached(node.pods.parent, NODE.name, NODE.attach_type)
    for namespace in node.namespaces.iterdir():
        yield from _attached(namespace, INBOUND.name, INBOUND.attach_type)


def _attached(place: Path, name: str, attach_type: int) -> Iterator[tuple[str, str]]:
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # a pod has just gone
        return
    try:
        if count := syscalls.attached(descriptor, attach_type):
            yield f"{name} at {place.name}", f"{count} programs"
    finally:
        os.close(descriptor)
