"""Stop, start and restart daemons of a running cluster; run commands on its nodes."""

from __future__ import annotations

import os
import signal

from tests.cluster import control_plane, network, nodes, processes
from tests.cluster.plan import Cluster

# What people call them; the records have the programs' names.
SHORT = {"apiserver": "kube-apiserver", "controller-manager": "kube-controller-manager", "scheduler": "kube-scheduler"}


def named(cluster: Cluster, target: list[str]) -> list[str]:
    """The records of NODE, NODE DAEMON, `control-plane` or a daemon of it, in the order in which they start.

    Raises KeyError with a sentence when there is no such thing.
    """
    first, rest = SHORT.get(target[0], target[0]), target[1:]
    if first == "control-plane" and not rest:
        return list(control_plane.DAEMONS)
    if first in control_plane.DAEMONS and not rest:
        return [first]
    node = cluster.node(first)
    if len(rest) > 1 or any(name not in nodes.DAEMONS for name in rest):
        raise KeyError(f"{' '.join(target)}: {node.name} has {', '.join(nodes.DAEMONS)}")
    return [f"{node.name}.{name}" for name in rest or nodes.DAEMONS]


def change(cluster: Cluster, name: str, verb: str, kill: bool = False) -> None:
    """`verb` is stop, start or restart. Pods go on while containerd is away, as on any node: their shims stay."""
    known = processes.load(cluster, name)
    if verb != "start":
        processes.stop(known, signal.SIGKILL if kill else signal.SIGTERM)
    if verb != "stop" and not processes.alive(known):
        processes.start(cluster, known)
        _wait(cluster, name)


def _wait(cluster: Cluster, name: str) -> None:
    if name == "kube-apiserver":
        control_plane.wait_until_ready(cluster)
    if name.endswith(".containerd"):
        nodes.wait_for_containerd(cluster.node(name.partition(".")[0]))


def inside(cluster: Cluster, place: str, command: list[str]) -> list[str]:
    """`command`, run on a node (in all of its namespaces and its cgroup) or in another network namespace of ours."""
    if place in ("underlay", *network.PLACES):
        return ["nsenter", f"--net=/run/netns/{cluster.namespace(place)}", "--", *command]
    node = cluster.node(place)
    entered = nodes.entering(node, f"--wdns={os.getcwd()}")
    return processes.joined(nodes.system_group(node), (*entered, *command))
