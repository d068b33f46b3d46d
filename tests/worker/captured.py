"""The same node with the real capture: eBPF programs on its cgroups, apps that dial as if there were no mesh."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ebpf.cgroups import cgroup2_root
from ebpf.node import Capture
from mesh.model.address import SocketAddress
from tests.ebpf import stage as ebpf_stage
from tests.identity.certificates_for_tests import Issuer
from tests.worker.node import PATIENCE, ROOT, V4, Node, Pod, Worker
from ztunnel.agent.sockets import PodSockets

FACTORY = Path(__file__).with_name("socket_factory.py")


@dataclass
class CapturedPod(Pod):
    """Its sockets belong to its cgroup, so that what they dial is captured while the pod is enrolled."""

    factory: socket.socket | None = None
    capture: Capture | None = None
    proxy_cgroup: Path = Path()

    def open_sockets(self) -> PodSockets:
        """As the agent does: in its own cgroup, which accepted connections belong to then; and plaintext comes here."""
        with in_cgroup(self.proxy_cgroup):
            sockets = super().open_sockets()
        assert self.capture is not None
        for ip in (self.ip4, self.ip6):
            self.capture.steer_inbound(ip, sockets.inbound)
        return sockets

    def socket(self, family: int = V4, kind: int = socket.SOCK_STREAM) -> socket.socket:
        assert self.factory is not None
        self.factory.send(f"{int(family)} {int(kind)}".encode())
        descriptor = socket.recv_fds(self.factory, 1, 1)[1][0]
        sock = socket.socket(fileno=descriptor)
        sock.settimeout(PATIENCE)
        return sock

    def dial(self, destination: SocketAddress) -> socket.socket:
        return self.dial_plainly(destination)


@dataclass
class CapturedNode(Node):
    capture: Capture | None = None
    cgroup: Path = Path()
    pins: Path = Path()
    enrolled: list[Pod] = field(default_factory=list)

    def _start(self, **environment: str) -> Worker:
        def enter_cgroup() -> None:
            (self.cgroup / "system" / "cgroup.procs").write_text(str(os.getpid()))

        command = [sys.executable, "-m", "ztunnel.worker", "--feed"]
        return Worker(command, enter_cgroup, AMBIT_BPF_PINS=str(self.pins), **environment)

    def worker(self, *pods: Pod, **environment: str) -> Worker:
        """Serves and enrols the given pods."""
        worker = super().worker(*pods, **environment)
        assert self.capture is not None
        for pod in pods:
            self.capture.attach_inbound(pod.netns, pod.name)
            self.capture.enrol(pod.cookie)
            self.enrolled.append(pod)
        return worker

    def clear(self) -> None:
        assert self.capture is not None
        for pod in self.enrolled:
            self.capture.withdraw(pod.cookie)
            self.capture.detach_inbound(pod.name)
        self.enrolled.clear()
        super().clear()


@contextlib.contextmanager
def new_captured_node(directory: Path) -> Iterator[CapturedNode]:
    with ebpf_stage.new_stage() as stage, contextlib.ExitStack() as undo:
        pods = [_pod(each, name, stage, directory, undo) for each, name in ((stage.a, "a"), (stage.b, "b"))]
        node = CapturedNode(
            pods[0], pods[1], Issuer.root(), directory, capture=stage.capture, cgroup=stage.cgroup, pins=stage.pins
        )
        try:
            yield node
        finally:
            node.clear()


def _pod(
    pod: ebpf_stage.Pod, name: str, stage: ebpf_stage.Stage, directory: Path, undo: contextlib.ExitStack
) -> CapturedPod:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, str(FACTORY), str(stage.pods_cgroup), str(theirs.fileno())]
        process = subprocess.Popen(["nsenter", f"--net={pod.netns}", *command], pass_fds=[theirs.fileno()], cwd=ROOT)
    netns = os.open(pod.netns, os.O_RDONLY)
    undo.callback(process.wait)
    undo.callback(ours.close)
    undo.callback(os.close, netns)
    return CapturedPod(
        name,
        pod.netns.name,
        netns,
        pod.cookie,
        pod.ip4,
        pod.ip6,
        directory,
        factory=ours,
        capture=stage.capture,
        proxy_cgroup=stage.cgroup / "system",
    )


@contextlib.contextmanager
def in_cgroup(cgroup: Path) -> Iterator[None]:
    """This process, for a moment."""
    unified = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    home = cgroup2_root() / unified.removeprefix("0::").lstrip("/")
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))
