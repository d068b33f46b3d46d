"""Bring a cluster up, take it down, say how it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import addons, cgroups, control_plane, machine, network, nodes, processes, record
from tests.cluster.image_archive import make_image
from tests.cluster.images import load_on
from tests.cluster.node_config import PAUSE_IMAGE
from tests.cluster.pki import Authority
from tests.cluster.plan import BASE, BIN, DEFAULT_NAME, Cluster, state_directory

Say = Callable[[str], None]


def up(name: str, size: int, dual_stack: bool, say: Say, *, mine: bool = False) -> Cluster:
    """A running cluster: the one that runs already if it is alike, else a new one in place of its remains.

    `mine`: the caller holds the users' lock. Raises RuntimeError when a different cluster of the name runs, when
    somebody works with a broken one (who may have broken it on purpose), or when something not ours has a needed name.
    """
    with record.changing(name):
        known = record.load(name)
        if known and healthy(known):
            return _same(known, size, dual_stack)
        if not mine and (holder := record.in_use(name)):
            raise RuntimeError(f"{name} does not run as it should and is {holder}")
        if known or state_directory(name).exists():
            say(f"removing what is left of {name}")
            _remove(known, name)
        return _create(_claim(name, size, dual_stack), say)


def _claim(name: str, size: int, dual_stack: bool) -> Cluster:
    with record.choosing():
        cluster = Cluster(name, network.free_index({other.index for other in record.every()}), size, dual_stack)
        if found := network.taken(cluster) + cgroups.taken(name):
            raise RuntimeError(f"{', '.join(found)} exists and is not of {name}: choose another --name")
        record.save(cluster)
        machine.remember()
        return cluster


def _same(known: Cluster, size: int, dual_stack: bool) -> Cluster:
    if (known.size, known.dual_stack) != (size, dual_stack):
        kind = "dual stack" if known.dual_stack else "IPv4"
        raise RuntimeError(f"{known.name} runs with {known.size} nodes, {kind}: take it down first, or choose a --name")
    return known


def _create(cluster: Cluster, say: Say) -> Cluster:
    began = time.monotonic()
    network.create(cluster)
    say("network is up")
    authority = Authority(control_plane.directory(cluster))
    control_plane.configure(cluster, authority)
    control_plane.start(cluster, "etcd")
    control_plane.start(cluster, "kube-apiserver")
    _start_nodes(cluster, authority)
    say("nodes have containerd and images")
    control_plane.wait_until_ready(cluster)
    say("API server is ready")
    for name in ("kube-controller-manager", "kube-scheduler"):
        control_plane.start(cluster, name)
    for node in cluster.nodes:
        nodes.start_daemon(node, "kubelet")
        nodes.start_daemon(node, "kube-proxy")
    addons.install_coredns(cluster)
    processes.wait("every node is ready", lambda: len(ready_nodes(cluster)) == cluster.size)
    processes.wait("CoreDNS is ready", lambda: addons.coredns_ready(cluster))
    _publish(cluster)
    say(f"{cluster.name} is up after {time.monotonic() - began:.0f} s; export KUBECONFIG={cluster.kubeconfig}")
    return cluster


def _start_nodes(cluster: Cluster, authority: Authority) -> None:
    pause, coredns = cluster.state / "pause.tar", cluster.state / "coredns.tar"
    make_image(pause, PAUSE_IMAGE, ("/pause",), {"/pause": BIN / "pause"})
    addons.make_coredns(coredns)
    for node in cluster.nodes:
        node.state.mkdir()
        nodes.start_init(node)
        nodes.configure(node, authority)
        nodes.start_daemon(node, "containerd")
    for node in cluster.nodes:
        nodes.wait_for_containerd(node)
        load_on(node, pause, [PAUSE_IMAGE])
        load_on(node, coredns, [addons.COREDNS_IMAGE])


def _publish(cluster: Cluster) -> None:
    """The default cluster's kubeconfig also has a path that does not depend on its name."""
    (cluster.state / "complete").touch()
    if cluster.name == DEFAULT_NAME:
        (BASE / "kubeconfig").unlink(missing_ok=True)
        (BASE / "kubeconfig").symlink_to(cluster.kubeconfig)


def ready_nodes(cluster: Cluster) -> list[str]:
    path = "jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=='Ready')].status} {end}"
    found = control_plane.kubectl(cluster, "get", "nodes", "-o", path, "--request-timeout=5s").split()
    return [node.removesuffix("=True") for node in found if node.endswith("=True")]


def healthy(cluster: Cluster) -> bool:
    """Whether it was brought up to the end, every daemon runs and the API server answers."""
    if not (cluster.state / "complete").exists():
        return False
    running = [processes.alive(processes.load(cluster, name)) for name in processes.names(cluster)]
    return all(running) and control_plane.ready(cluster)


def status(cluster: Cluster) -> list[str]:
    """One line per daemon, then the API server's own view."""
    records = [processes.load(cluster, name) for name in processes.names(cluster)]
    lines = [f"{one.name:24} {'runs' if processes.alive(one) else 'does not run':13} {one.pid}" for one in records]
    try:
        nodes_there = ", ".join(ready_nodes(cluster)) or "none"
    except subprocess.CalledProcessError as error:
        nodes_there = f"unknown: {error}"
    return [*lines, f"ready nodes: {nodes_there}"]


def down(name: str) -> bool:
    """Remove every trace of the cluster; False when there was none."""
    with record.changing(name):
        known = record.load(name)
        if known is None and not state_directory(name).exists():
            return False
        _remove(known, name)
        return True


def _remove(cluster: Cluster | None, name: str) -> None:
    if cluster is not None:
        cgroups.kill(name)
        network.remove(cluster)
        cgroups.remove(name)
    _unpublish(name)
    with record.choosing():
        (state_directory(name) / "cluster.json").unlink(missing_ok=True)
        if not record.every():
            machine.restore()
    shutil.rmtree(state_directory(name))


def _unpublish(name: str) -> None:
    link = BASE / "kubeconfig"
    if name == DEFAULT_NAME and link.is_symlink() and Path(os.readlink(link)).is_relative_to(state_directory(name)):
        link.unlink()
