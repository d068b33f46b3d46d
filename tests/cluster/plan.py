"""What a cluster consists of: names, addresses and directories, all of them derived from four values."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

DEFAULT_NAME = "ambit-cluster"
BASE = Path(os.environ.get("AMBIT_CLUSTER_DIR", "/var/tmp/ambit-cluster"))
CACHE = BASE / "cache"
BIN = CACHE / "bin"

PODS = ("10.244.0.0/16", "fd00:10:244::/56")
SERVICES = ("10.96.0.0/16", "fd00:10:96::/112")
API_SERVICE = ("10.96.0.1", "fd00:10:96::1")
CLUSTER_DNS = ("10.96.0.10", "fd00:10:96::a")

# Host parts on the underlay; node N is FIRST_NODE + N - 1.
HOST, CONTROL, OUTSIDE, FIRST_NODE = 1, 2, 3, 11
MOST_NODES = 9


@dataclass(frozen=True)
class Cluster:
    """One cluster. `index` chooses its underlay (172.30.INDEX.0/24), so that clusters coexist."""

    name: str
    index: int
    size: int
    dual_stack: bool

    def __post_init__(self) -> None:
        """Raises ValueError: the name is also that of a network interface, which has at most 15 characters."""
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,14}", self.name):
            raise ValueError(f"cluster name {self.name!r}: at most 15 of a-z, 0-9 and '-', the first a letter")
        if not 1 <= self.size <= MOST_NODES:
            raise ValueError(f"--nodes {self.size}: must be 1 to {MOST_NODES}")

    @property
    def state(self) -> Path:
        return state_directory(self.name)

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(Node(self, number) for number in range(1, self.size + 1))

    def node(self, name: str) -> Node:
        """Raises KeyError with a sentence when there is no such node."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(f"{self.name} has no node {name!r}, only {', '.join(node.name for node in self.nodes)}")

    def families(self, both: tuple[str, str]) -> tuple[str, ...]:
        """Of an IPv4 and an IPv6 value those that this cluster has."""
        return both if self.dual_stack else both[:1]

    def underlay(self, host: int) -> tuple[str, ...]:
        return self.families((f"172.30.{self.index}.{host}", f"fd00:172:30:{self.index}::{host}"))

    def namespace(self, place: str) -> str:
        """The network namespace of a node, or of `underlay`, `control` or `outside`."""
        return f"{self.name}-{place}"

    @property
    def server(self) -> str:
        return f"https://{self.underlay(CONTROL)[0]}:6443"


@dataclass(frozen=True)
class Node:
    """One node; `number` counts from 1."""

    cluster: Cluster
    number: int

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.cluster.underlay(FIRST_NODE + self.number - 1)

    @property
    def pods(self) -> tuple[str, ...]:
        return self.cluster.families((f"10.244.{self.number}.0/24", f"fd00:10:244:{self.number}::/64"))

    @property
    def state(self) -> Path:
        return self.cluster.state / self.name

    @property
    def group(self) -> str:
        """Its cgroup, in every hierarchy; what the node itself sees as the root."""
        return f"{self.cluster.name}/{self.name}"


def state_directory(name: str) -> Path:
    return BASE / "clusters" / name


def lock_of_users(name: str) -> Path:
    """Locked by whoever works with the cluster."""
    return BASE / ("in-use" if name == DEFAULT_NAME else f"locks/{name}.in-use")


def lock_of_changes(name: str) -> Path:
    """Locked while the cluster is brought up or down."""
    return BASE / f"locks/{name}.changing"
