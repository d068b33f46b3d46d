"""A local mesh of its own with the pods of the measurements: the same pair of pods for all systems but Ambit, which has
an equal pair in a namespace that is in the mesh."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.store import kinds
from controller.store.interface import Key
from deploy.local import api, bring_up, cgroups, description
from deploy.local.errors import LocalError
from deploy.local.node import sandbox
from deploy.local.objects import condition
from deploy.local.paths import DIRECTORY_VARIABLE, INSTANCE_VARIABLE, Instance
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE, REDIRECTION, REDIRECTION_ENABLED
from perf.bench.place import Place

INSTANCE = "ambit-bench"
LOAD = Path(__file__).resolve().parents[1] / "build" / "load"
PLAIN, MESH, LABELLED = "plain", "mesh", "labelled"  # namespaces
CLIENT_NODE, SERVER_NODE = "node1", "node2"
OUTSIDE_NODES = ("outside1", "outside2")  # cgroups that no eBPF program is attached to
APP = 9000  # echo; the load program's sink and source are on the next two
OUTSIDE_APP = 9100  # the same, of a server that the eBPF programs do not see
PATIENCE = 30.0
GLANCE = 0.02
# A full table of TIME_WAIT sockets makes every connect() search for a free port: that would be all that is measured.
TIME_WAITS = ("net/ipv4/tcp_max_tw_buckets", "2000")


@dataclass(frozen=True, slots=True)
class Pair:
    """A client's pod on the first node and a server's on the second."""

    client: Place
    server: Place


@dataclass(frozen=True, slots=True)
class Testbed:
    """`outside` are the places of `plain` in a cgroup that is not the mesh's."""

    instance: Instance
    plain: Pair
    outside: Pair
    mesh: Pair
    labelled: Place

    @property
    def files(self) -> Path:
        """For configurations and keys; removed with the mesh."""
        return self.instance.runtime

    def change_label(self, namespace: str, value: str | None) -> None:
        """Put a namespace into the mesh, or (None) take it out."""

        def edit(obj: dict[str, Any]) -> None:
            labels = obj["metadata"].setdefault("labels", {})
            labels.pop(DATAPLANE_MODE, None)
            if value is not None:
                labels[DATAPLANE_MODE] = value

        asyncio.run(api.open_store().change(Key("Namespace", "", namespace), edit))

    def proxies(self, node: str) -> frozenset[int]:
        """The processes of a node's ztunnel."""
        return cgroups.processes(self.instance.node(node).system_cgroup)

    def restart_ztunnels(self) -> None:
        """As an update would: ended, started again by their supervisor, ready. Raises LocalError."""
        before = {node.name: self._agent(node.name) for node in description.nodes(self.instance)}
        for pid in before.values():
            os.kill(pid, signal.SIGTERM)
        for node in description.nodes(self.instance):
            until(lambda node=node: self._agent(node.name) not in (0, before[node.name]), f"{node.name}'s ztunnel")  # type: ignore[misc]
            until(lambda node=node: bring_up.ztunnel_is_ready(self.instance, node), f"{node.name}'s ztunnel")  # type: ignore[misc]

    def _agent(self, node: str) -> int:
        found = [fare["pid"] for name, fare in bring_up.fares(self.instance).items() if name == f"{node}-ztunnel"]
        return int(found[0]) if found else 0


def until(true: Callable[[], bool], what: str) -> None:
    """Raises LocalError."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise LocalError(f"{what} is not ready after {PATIENCE:.0f} s")
        time.sleep(GLANCE)


@contextmanager
def testbed(progress: Callable[[str], None], name: str) -> Iterator[Testbed]:
    """Up, with all pods ready and one namespace in the mesh; down again whatever happens. `name`: of the local mesh,
    of which there can be one at a time. Raises LocalError."""
    os.environ[INSTANCE_VARIABLE] = name
    os.environ.pop(DIRECTORY_VARIABLE, None)
    with _alone(Path(f"/run/{name}.lock")):
        try:
            api.down(progress)  # what a run that was killed has left
            api.up(2, progress)
            progress("Starting the pods")
            yield _with_pods()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # what is left would be in the way of others
                signal.signal(number, signal.SIG_IGN)
            api.down(progress)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LocalError(f"{lock.stem} is running already: two would only measure each other") from None
        yield


def _with_pods() -> Testbed:
    wanted = [(PLAIN, "client"), (PLAIN, "server"), (MESH, "client"), (MESH, "server"), (LABELLED, "client")]
    asyncio.run(_apply(wanted))
    until(lambda: asyncio.run(_ready()), "a pod of the benchmark")
    instance = Instance.current()
    places = [_place(instance, namespace, name) for namespace, name in wanted]
    for place in places:
        place.set_sysctl(*TIME_WAITS)
    client, server = (_outside(instance, each, node) for each, node in zip(places, OUTSIDE_NODES, strict=False))
    return Testbed(instance, Pair(*places[:2]), Pair(client, server), Pair(*places[2:4]), places[4])


def _outside(instance: Instance, place: Place, node: str) -> Place:
    """The same network, in cgroups of the same shape as a node's: the scheduler's accounts walk up from where a task
    ran to what it has in common with the next one, on each switch, and that would be taken for the mesh's doing."""
    return Place(place.netns, instance.cgroup / node / "pods" / "pod" / "load", place.ip)


async def _apply(pods: list[tuple[str, str]]) -> None:
    store = api.open_store()
    for namespace in dict.fromkeys(namespace for namespace, _ in pods):
        labels = {DATAPLANE_MODE: AMBIENT} if namespace == MESH else {}
        metadata = {"name": namespace, "labels": labels}
        await store.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    for namespace, name in pods:
        await store.apply(_pod(namespace, name))


def _pod(namespace: str, name: str) -> dict[str, Any]:
    command = [str(LOAD), "serve", str(APP)] if name == "server" else ["sleep", "infinity"]
    node = SERVER_NODE if name == "server" else CLIENT_NODE
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [{"name": "load", "image": "load", "command": command}],
        },
    }


async def _ready() -> bool:
    pods = await api.open_store().list(kinds.POD)
    return all(condition(pod, "Ready") and _settled(pod) for pod in pods)


def _settled(pod: Any) -> bool:
    enrolled = pod["metadata"].get("annotations", {}).get(REDIRECTION) == REDIRECTION_ENABLED
    return bool(enrolled == (pod["metadata"]["namespace"] == MESH))


def _place(instance: Instance, namespace: str, name: str) -> Place:
    return find_place(instance, asyncio.run(api.open_store().get(kinds.POD, name, namespace)))


def find_place(instance: Instance, pod: Mapping[str, Any]) -> Place:
    """Of a pod that runs. Raises LocalError."""
    uid, node = pod["metadata"]["uid"], pod["spec"]["nodeName"]
    found = sandbox.find(instance, node, uid)
    if found is None:
        raise LocalError(f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} has no network on {node}")
    return Place(found.netns, instance.node(node).pod_cgroup(uid) / "load", found.addresses.v4)
