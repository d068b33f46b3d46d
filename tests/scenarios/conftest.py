"""One local mesh for all scenarios, driven through the `ambit` command as a user would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cli.packets import PacketWatch
from deploy.local import namespaces
from deploy.local.paths import DIRECTORY_VARIABLE, INSTANCE_VARIABLE, Instance
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
NAME = "ambit-test-mesh"
T = TypeVar("T")


@dataclass
class Running:
    """A client that goes on in a pod: say lines to it, read its lines."""

    process: subprocess.Popen[str]

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, word: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()
        return self.line()

    def finish(self) -> Any:
        """Ends its standard input; what it says last."""
        output, _ = self.process.communicate(timeout=60)
        return json.loads(output.splitlines()[-1])


class Mesh:
    """The hands of a test."""

    def __init__(self, name: str) -> None:
        self.instance = Instance.named(name)
        self.environment = {**os.environ, INSTANCE_VARIABLE: name}
        self.environment.pop(DIRECTORY_VARIABLE, None)
        self._running: list[subprocess.Popen[str]] = []

    def ambit(self, *words: str, stdin: str | None = None, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", *words]
        return subprocess.run(
            command, env=self.environment, input=stdin, capture_output=True, text=True, timeout=timeout
        )

    def must(self, *words: str, stdin: str | None = None) -> str:
        done = self.ambit(*words, stdin=stdin)
        assert done.returncode == 0, f"ambit {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def get(self, *words: str) -> Any:
        return json.loads(self.must("local", "get", *words, "-o", "json"))

    # --- clients in pods

    def client(self, pod: str, habit: str, host: str, port: int, *arguments: Any) -> Any:
        """Runs a habit of programs/client.py in `namespace/pod` and returns its answer."""
        namespace, name = pod.split("/")
        words = ["python3", str(PROGRAMS / "client.py"), habit, host, str(port), *map(str, arguments)]
        return json.loads(self.must("local", "exec", name, "-n", namespace, "--", *words).splitlines()[-1])

    def start(self, pod: str, habit: str, host: str, port: int) -> Running:
        namespace, name = pod.split("/")
        words = ["python3", "-u", str(PROGRAMS / "client.py"), habit, host, str(port)]
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "local", "exec", name, "-n", namespace, "--", *words],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        running = Running(process)
        assert running.line(), f"{habit} in {pod} did not begin"
        return running

    def end_clients(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()

    # --- objects

    def label(self, wanted: bool, namespace: str = "meshed") -> None:
        change = f"{DATAPLANE_MODE}={AMBIENT}" if wanted else f"{DATAPLANE_MODE}-"
        self.must("local", "label", "namespace", namespace, change)

    def address(self, pod: str, v6: bool = False) -> str:
        namespace, name = pod.split("/")
        addresses = [entry["ip"] for entry in self.get("pod", name, "-n", namespace)["status"]["podIPs"]]
        return next(each for each in addresses if (":" in each) == v6)

    def service_address(self, service: str, v6: bool = False) -> str:
        namespace, name = service.split("/")
        return next(
            each for each in self.get("svc", name, "-n", namespace)["spec"]["clusterIPs"] if (":" in each) == v6
        )

    # --- the machine

    def within(self, place: str, work: Callable[[], T]) -> T:
        """Runs `work` in the network namespace of the underlay, of a node, or of the controller ("control")."""
        return namespaces.inside(self.instance.netns(place), work)

    def watch(self) -> PacketWatch:
        return PacketWatch(lambda work: self.within("underlay", work))

    def connections(self, node: str = "") -> list[dict[str, Any]]:
        chosen = ["--node", node] if node else []
        found = json.loads(self.must("ztunnel-config", "connections", "-o", "json", *chosen))
        return [each for listed in found.values() for each in listed]

    def processes(self, *words: str) -> list[int]:
        """The ids of this mesh's processes whose command line has all the words."""
        found = []
        for entry in self.instance.cgroup.rglob("cgroup.procs"):
            for process in map(int, entry.read_text().split()):
                try:
                    line = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if all(word in line for word in words):
                    found.append(process)
        return found

    def ztunnel(self, node: str) -> list[int]:
        """Agent and workers of a node."""
        members = set(map(int, (self.instance.node(node).system_cgroup / "cgroup.procs").read_text().split()))
        return [each for each in self.processes("ztunnel.") if each in members]

    def kill(self, processes: list[int]) -> None:
        for process in processes:
            os.kill(process, signal.SIGKILL)


def until(true: Callable[[], bool], what: str, patience: float = 30.0) -> None:
    """Waits for something to become true; a test fails with `what` when it does not."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {patience:.0f} s"
        time.sleep(0.05)


# Scenarios move gigabytes and tens of thousands of connections, on machines that may be busy: only a hang is a failure.
PATIENCE = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(PATIENCE))


@pytest.fixture(scope="session")
def whole_mesh() -> Iterator[Mesh]:
    mesh = Mesh(NAME)
    mesh.ambit("local", "down")
    try:
        mesh.must("local", "up", "--nodes", "2")
        manifest = (HERE / "mesh.yaml").read_text().replace("PROGRAMS", str(PROGRAMS))
        mesh.must("local", "apply", "--wait", "-f", "-", stdin=manifest)
        yield mesh
    finally:
        mesh.end_clients()
        mesh.ambit("local", "down")


@pytest.fixture
def mesh(whole_mesh: Mesh) -> Iterator[Mesh]:
    """The mesh, with its namespace labelled whatever the test before has done."""
    whole_mesh.label(True)
    yield whole_mesh
    whole_mesh.end_clients()


@pytest.fixture
def listening_outside(mesh: Mesh) -> Iterator[tuple[str, int]]:
    """A plain TCP server that is no pod at all: on the underlay, as a database outside the cluster would be."""
    listener = mesh.within("underlay", lambda: socket.create_server(("0.0.0.0", 0)))
    yield "", listener.getsockname()[1]
    listener.close()
