"""One local mesh for all scenarios, driven through the `ambit` command as a user would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cli.packets import PacketWatch
from deploy.local import namespaces
from deploy.local.paths import DIRECTORY_VARIABLE, INSTANCE_VARIABLE, Instance
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE, REDIRECTION
from tests.kube.installed import KubeMesh
from tests.scenarios.home import Home, Programs, Running, until
from tests.scenarios.kubernetes import KubernetesHome

__all__ = ["Mesh", "until"]

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
NAME = "ambit-test-mesh"
T = TypeVar("T")


class Mesh:
    """A local mesh, and the hands of a test: a `Home`, and what only this home has."""

    bulk = 1 << 30

    def __init__(self, name: str) -> None:
        self.instance = Instance.named(name)
        self.environment = {**os.environ, INSTANCE_VARIABLE: name}
        self.environment.pop(DIRECTORY_VARIABLE, None)
        self._programs = Programs()

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
        command = [sys.executable, "-m", "cli", "local", "exec", name, "-n", namespace, "--", *words]
        return self._programs.start(command, self.environment)

    def end_clients(self) -> None:
        self._programs.end()

    # --- objects

    def apply(self, manifest: str, *options: str) -> None:
        self.must("local", "apply", *options, "-f", "-", stdin=manifest.replace("PROGRAMS", str(PROGRAMS)))

    def delete_pod(self, pod: str) -> None:
        namespace, name = pod.split("/")
        self.must("local", "delete", "pod", name, "-n", namespace)

    def pod(self, pod: str) -> Any:
        namespace, name = pod.split("/")
        return self.get("pod", name, "-n", namespace)

    def phase(self, pod: str) -> str:
        return str(self.pod(pod).get("status", {}).get("phase"))

    def containers(self, namespace: str) -> list[str]:
        pods = self.get("pods", "-n", namespace)["items"]
        return [state["containerID"] for pod in pods for state in pod["status"]["containerStatuses"]]

    def redirection(self, pod: str) -> str | None:
        found: str | None = self.pod(pod)["metadata"].get("annotations", {}).get(REDIRECTION)
        return found

    def label(self, wanted: bool, namespace: str = "meshed") -> None:
        change = f"{DATAPLANE_MODE}={AMBIENT}" if wanted else f"{DATAPLANE_MODE}-"
        self.must("local", "label", "namespace", namespace, change)

    def label_pod(self, pod: str, mode: str | None) -> None:
        namespace, name = pod.split("/")
        change = f"{DATAPLANE_MODE}={mode}" if mode else f"{DATAPLANE_MODE}-"
        self.must("local", "label", "pod", name, "-n", namespace, change)

    def address(self, pod: str, v6: bool = False) -> str:
        addresses = [entry["ip"] for entry in self.pod(pod)["status"]["podIPs"]]
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
        mesh.apply((HERE / "mesh.yaml").read_text(), "--wait")
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


@pytest.fixture(scope="session")
def pods_on_kubernetes(on_kubernetes: KubeMesh) -> Iterator[KubernetesHome]:
    home = KubernetesHome(on_kubernetes)
    try:
        home.begin((HERE / "mesh.yaml").read_text())
        yield home
    finally:
        home.end()


@pytest.fixture(scope="session", params=["local", "kubernetes"])
def whole_home(request: pytest.FixtureRequest) -> Mesh | KubernetesHome:
    """Every scenario that takes it runs on both homes; on Kubernetes where there is a cluster."""
    name = {"local": "whole_mesh", "kubernetes": "pods_on_kubernetes"}[request.param]
    found: Mesh | KubernetesHome = request.getfixturevalue(name)
    return found


@pytest.fixture
def home(whole_home: Mesh | KubernetesHome) -> Iterator[Home]:
    """With its namespace labelled whatever the test before has done."""
    whole_home.label(True)
    yield whole_home
    whole_home.end_clients()


@pytest.fixture
def listening_outside(mesh: Mesh) -> Iterator[tuple[str, int]]:
    """A plain TCP server that is no pod at all: on the underlay, as a database outside the cluster would be."""
    listener = mesh.within("underlay", lambda: socket.create_server(("0.0.0.0", 0)))
    yield "", listener.getsockname()[1]
    listener.close()
