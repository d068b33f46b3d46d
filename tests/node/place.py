"""Pods without a container runtime: real cgroups, network namespaces and processes, laid out as a kubelet does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from deploy.node.pod_cgroups import places
from ebpf.cgroups import cgroup2_root
from tests.ebpf.stage import ip, unique_name

CONTAINER = {"kubepods": "4f4f", "kubepods.slice": "cri-containerd-4f4f.scope"}


class Kubelet:
    """Of one node. `driver` is the name of the group of all pods."""

    def __init__(self, name: str, driver: str) -> None:
        self.name = name
        self.kubepods = cgroup2_root() / name / driver
        self.processes: list[subprocess.Popen[bytes]] = []
        self.namespaces: list[str] = []

    def namespace(self) -> Path:
        """As the runtime makes one, before anything runs in it."""
        name = f"{self.name}-{len(self.namespaces)}"
        ip("netns", "add", name)
        self.namespaces.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        return Path("/run/netns") / name

    def run(self, uid: str, netns: Path | None, kind: int = 1) -> subprocess.Popen[bytes]:
        """A container: of the pod's class `kind`, in a network namespace or in the host's."""
        container = self.kubepods / places(self.kubepods.name, uid)[kind] / CONTAINER[self.kubepods.name]
        container.mkdir(parents=True, exist_ok=True)
        enter = ["nsenter", f"--net={netns}"] if netns else []
        process = subprocess.Popen(
            ["sh", "-c", f'echo $$ > {container}/cgroup.procs; echo; exec "$@"', "sh", *enter, "sleep", "300"],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        for directory in sorted((cgroup2_root() / self.name).rglob("*"), reverse=True):
            if directory.is_dir():
                directory.rmdir()
        (cgroup2_root() / self.name).rmdir()
        for name in self.namespaces:
            ip("netns", "del", name)


def new_uid() -> str:
    return str(uuid4())


@contextmanager
def kubelet(driver: str = "kubepods") -> Iterator[Kubelet]:
    made = Kubelet(unique_name(), driver)
    made.kubepods.mkdir(parents=True)
    try:
        yield made
    finally:
        made.end()
