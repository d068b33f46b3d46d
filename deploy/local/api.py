"""What the `ambit` command asks of a local mesh: of the instance that the environment names, the default one else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from controller.store import kinds
from controller.store.directory import DirectoryStore
from controller.store.interface import NotFound, Object
from deploy.local import bring_up, daemon, description, namespaces, processes, teardown
from deploy.local.entry import CannotRun, Entry
from deploy.local.errors import LocalError
from deploy.local.node import containers, sandbox
from deploy.local.paths import Instance

Result = TypeVar("Result")
CONTROLLER = "controller"
FOLLOW_GLANCE = 0.2  # seconds between looks at a log that is followed
PIECE = 64 << 10

__all__ = ["LocalError", "down", "exec_in_pod", "in_node", "nodes", "read_logs", "require_running", "status", "up"]


def up(count: int, progress: teardown.Progress) -> None:
    """Raises LocalError; then nothing is left of what it began."""
    bring_up.up(Instance.current(), count, progress)


def down(progress: teardown.Progress) -> None:
    """End the mesh and remove everything of it; nothing happens when there is none. Raises LocalError."""
    instance = Instance.current()
    if os.geteuid() != 0:
        raise LocalError("ending a local mesh needs root")
    with bring_up.exclusive(instance):
        teardown.remove(instance, progress)


def is_running() -> bool:
    return daemon.is_running(Instance.current())


def require_running() -> None:
    """Raises LocalError."""
    instance = Instance.current()
    if os.geteuid() != 0:
        raise LocalError("a local mesh belongs to root: run this as root")
    if daemon.is_running(instance):
        return
    if teardown.is_there(instance):
        raise LocalError(
            "the local mesh has crashed, or is being made; start anew with: ambit local up, or end it: ambit local down"
        )
    raise LocalError("no local mesh is running; start one with: ambit local up")


def nodes() -> Sequence[str]:
    return [node.name for node in description.nodes(Instance.current())]


def pins(node: str) -> Path:
    """Where a node's eBPF programs and maps are pinned."""
    return Instance.current().node(node).pins


def objects_dir() -> Path:
    return Instance.current().objects


def open_store() -> DirectoryStore:
    return DirectoryStore(objects_dir())


def in_node(node: str, work: Callable[[], Result]) -> Result:
    """What `work` returns (or raises) in the network namespace of a node, or of the controller. Raises LocalError."""
    instance = Instance.current()
    netns = instance.control if node == CONTROLLER else instance.netns(node)
    try:
        return namespaces.inside(netns, work)
    except FileNotFoundError:
        raise LocalError(f"the local mesh has no node {node}") from None


def in_pod(namespace: str, name: str, work: Callable[[], Result]) -> Result:
    """What `work` returns (or raises) in the network namespace of a pod. Raises LocalError."""
    pod, _ = _find(namespace, name, "")
    found = sandbox.find(Instance.current(), pod["spec"].get("nodeName", ""), pod["metadata"]["uid"])
    try:
        if found is not None:
            return namespaces.inside(found.netns, work)
    except FileNotFoundError:
        pass
    raise LocalError(f"pod {namespace}/{name} is not running")


def status() -> dict[str, Any]:
    """The processes of the mesh: per part its process id (0: not running), starts, and how it last ended; per node
    whether its ztunnel is ready."""
    instance = Instance.current()
    found = description.nodes(instance)
    return {
        "running": daemon.is_running(instance),
        "processes": bring_up.fares(instance),
        "nodes": {node.name: {"ztunnelReady": bring_up.ztunnel_is_ready(instance, node)} for node in found},
        "directory": str(instance.objects),
        "logs": str(instance.logs),
    }


def exec_in_pod(namespace: str, name: str, command: Sequence[str], container: str = "") -> int:
    """Run a command as if the container had: its network, files, environment, cgroup; with our standard streams.

    Returns its exit code; 128 + n after signal n. Raises LocalError: there is no such pod, or the command is not there.
    """
    pod, spec = _find(namespace, name, container)
    instance = Instance.current()
    node = pod["spec"].get("nodeName", "")
    home = next((each for each in description.nodes(instance) if each.name == node), None)
    found = sandbox.find(instance, node, pod["metadata"]["uid"]) if home else None
    if home is None or found is None:
        raise LocalError(f"pod {namespace}/{name} is not running")
    try:
        entry = containers.entry(pod, spec, sandbox.surroundings(instance, home, pod, found))
    except CannotRun as error:
        raise LocalError(f"pod {namespace}/{name}: {error}") from error
    if not Path(entry.cgroup).exists():
        raise LocalError(f"container {spec['name']} of pod {namespace}/{name} is not running")
    return _run(replace(entry, command=list(command)))


def _run(entry: Entry) -> int:
    reading, writing = os.pipe()
    try:
        process = processes.launch(entry, writing)
    finally:
        os.close(writing)
    # The terminal sends the command what it sends us: it decides what an interrupt means.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with os.fdopen(reading, "rb") as report:
            failure = report.read().decode()
        code = process.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    if failure:
        raise LocalError(f"{entry.command[0]!r} cannot be run: {failure}")
    return code if code >= 0 else 128 - code


def log_path(namespace: str, name: str, container: str = "") -> Path:
    """Raises LocalError: there is no such pod or container."""
    _, spec = _find(namespace, name, container)
    return Instance.current().pod_logs(namespace, name) / f"{spec['name']}.log"


def read_logs(namespace: str, name: str, container: str = "", follow: bool = False) -> Iterator[str]:
    """What a container has written, and with `follow` what it goes on to write. Raises LocalError."""
    path = log_path(namespace, name, container)
    position = 0
    while True:
        if path.exists():
            position = min(position, path.stat().st_size)  # it was cut
            with path.open("rb") as file:
                file.seek(position)
                while piece := file.read(PIECE):
                    yield piece.decode(errors="replace")
                position = file.tell()
        if not follow:
            return
        time.sleep(FOLLOW_GLANCE)


def _find(namespace: str, name: str, container: str) -> tuple[Object, Object]:
    """A pod and one of its containers, the first when none is named."""
    try:
        pod = asyncio.run(open_store().get(kinds.POD, name, namespace))
    except NotFound:
        raise LocalError(f"there is no pod {name} in namespace {namespace}") from None
    specs = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
    for spec in specs:
        if container in ("", spec["name"]):
            return pod, spec
    known = ", ".join(spec["name"] for spec in specs)
    raise LocalError(f"pod {namespace}/{name} has no container {container}; it has {known}")
