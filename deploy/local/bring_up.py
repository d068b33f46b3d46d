"""Makes a local mesh: checks, clears ruins, builds the network, starts the daemon, waits until all of it is ready."""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from controller.store import kinds
from controller.store.directory import DirectoryStore
from controller.store.interface import StoreError
from deploy.local import cgroups, description, namespaces, network, preflight, processes, programs, teardown
from deploy.local.addresses import NodeAddresses, node_addresses
from deploy.local.entry import CannotRun, Entry
from deploy.local.errors import LocalError
from deploy.local.objects import condition
from deploy.local.paths import Instance
from deploy.local.supervise import read_fares
from deploy.local.teardown import Progress
from mesh.model.ports import READINESS

PATIENCE = 90.0  # seconds; compiling the programs takes some, and more nodes share the machine
GLANCE = 0.05
GIVES_UP = 4  # starts of one part: after that many it will not come up by waiting
LOCAL_TIMEOUT = 2.0


def up(instance: Instance, count: int, progress: Progress) -> None:
    """Raises LocalError; then nothing is left of what it began."""
    progress("Checking this machine")
    preflight.check(instance, count)
    with exclusive(instance):
        preflight.check(instance, count)  # another `up` may have been faster
        if teardown.is_there(instance):
            progress(f"{_ruin(instance)}: clearing what it left, its objects too")
            teardown.remove(instance, _silent)
        try:
            _build(instance, count, progress)
        except BaseException as error:
            with suppress(LocalError):
                teardown.remove(instance, _silent)
            if isinstance(error, OSError | NetlinkError | CannotRun):
                raise LocalError(f"the mesh cannot be made: {error}") from error
            raise


def _ruin(instance: Instance) -> str:
    """What has become of the mesh that left something here."""
    with suppress(OSError, ValueError):
        return f"The daemon of the last mesh (process {int(instance.daemon.read_text())}) has died"
    return "An earlier mesh was not ended properly"


@contextmanager
def exclusive(instance: Instance) -> Iterator[None]:
    """One `up` or `down` at a time. Raises LocalError: another one is at it."""
    path = Path("/run") / f"{instance.name}-local.lock"
    descriptor = _open_locked(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LocalError("another ambit local up or down is at work; wait for its end") from None
        # The one before may have removed the file between our open and our lock: then the lock says nothing.
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def _silent(_: str) -> None:
    pass


def _build(instance: Instance, count: int, progress: Progress) -> None:
    nodes = [node_addresses(index) for index in range(1, count + 1)]
    progress(f"Making the network: {count} node{'s' if count > 1 else ''} on an underlay of their own")
    instance.runtime.mkdir(parents=True, mode=0o700)
    for directory in (instance.state, instance.objects, instance.logs):
        directory.mkdir(parents=True, mode=0o700)
    description.write(instance, count)
    cgroups.create(instance.control_cgroup)
    network.make_underlay(instance, nodes)
    for node in nodes:
        network.make_node(instance, node, [other for other in nodes if other is not node])
    progress("Starting the controller and the nodes")
    daemon = _start_daemon(instance)
    wait = _Waiting(instance, daemon)
    wait.until("the controller", lambda: _controller_answers(instance))
    progress("Loading the eBPF programs and starting a ztunnel on each node")
    for node in nodes:
        wait.until(node.name, lambda node=node: _node_is_ready(instance, node))  # type: ignore[misc]


def _start_daemon(instance: Instance) -> processes.Process:
    entry = Entry(
        command=[*programs.PYTHON, "-m", "deploy.local.daemon"],
        environment=programs.environment(instance),
        working_directory=str(programs.ROOT),
        cgroup=str(instance.control_cgroup),
    )
    return processes.start(entry, instance.logs / "daemon.log")


class _Waiting:
    def __init__(self, instance: Instance, daemon: processes.Process) -> None:
        self._instance, self._daemon = instance, daemon
        self._deadline = time.monotonic() + PATIENCE

    def until(self, what: str, ready: Callable[[], bool]) -> None:
        """Raises LocalError, with what the part that does not come up said last."""
        while not ready():
            if processes.find(self._daemon.pid, self._daemon.birth) is None:
                raise LocalError(f"the daemon has ended: {self._last_words('daemon')}")
            for name, fare in fares(self._instance).items():
                if fare["starts"] >= GIVES_UP:
                    raise LocalError(f"{name} does not come up: {self._last_words(name)}")
            if time.monotonic() > self._deadline:
                raise LocalError(f"{what} is not ready after {PATIENCE:.0f} s: {self._last_words(what)}")
            time.sleep(GLANCE)

    def _last_words(self, name: str) -> str:
        logs = self._instance.logs
        for log in (logs / f"{name}-ztunnel.log", logs / f"{name.removeprefix('the ')}.log"):
            with suppress(OSError):
                lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
                if lines:
                    return lines[-1].replace("\t", " ")
        return "it said nothing"


def fares(instance: Instance) -> dict[str, dict[str, Any]]:
    """How the processes of the mesh fare, by name (see `read_fares`)."""
    places = [instance.fares, *(instance.node(node.name).fares for node in description.nodes(instance))]
    return {name: fare for place in places for name, fare in read_fares(place).items()}


def _controller_answers(instance: Instance) -> bool:
    address = programs.CONTROLLER_ADDRESS
    try:
        namespaces.inside(
            instance.control, lambda: socket.create_connection((address.ip, address.port), LOCAL_TIMEOUT)
        ).close()
    except OSError:
        return False
    return True


def _node_is_ready(instance: Instance, node: NodeAddresses) -> bool:
    """Its process is, and its ztunnel says so."""
    try:
        found = asyncio.run(DirectoryStore(instance.objects).get(kinds.NODE, node.name))
    except StoreError:
        return False
    return condition(found, "Ready") and ztunnel_is_ready(instance, node)


def ztunnel_is_ready(instance: Instance, node: NodeAddresses) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", READINESS, timeout=LOCAL_TIMEOUT)
        connection.sock = namespaces.inside(
            instance.netns(node.name), lambda: socket.create_connection(("127.0.0.1", READINESS), LOCAL_TIMEOUT)
        )
        connection.request("GET", "/healthz/ready")
        ready = connection.getresponse().status == 200
        connection.close()
    except (OSError, http.client.HTTPException):
        return False
    return ready
