"""A node with pods for one agent: namespaces, cgroups, eBPF programs, and a node agent that a test leads by hand."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebpf import cgroups
from ebpf.netns import in_netns, netns_cookie
from ebpf.node import Capture
from mesh.model import ports
from mesh.model.address import Ip
from mesh.model.workload import TunnelProtocol, Workload, WorkloadUid
from mesh.wire.generated import zds_pb2
from tests.agent.control_plane import HOST, PORT, ControlPlane

ROOT = Path(__file__).parents[2]
NUMBERS = itertools.count(1)
PATIENCE = 20.0  # seconds until something that does not happen has failed its test
NODE = "node1"


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """What `condition` returns once it is true; it may raise OSError meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if result := condition():
                return result
            problem = ""
        except OSError as error:
            problem = f" ({error})"
        assert time.monotonic() < deadline, f"{what} did not happen{problem}"
        time.sleep(0.02)


@dataclass(frozen=True)
class TestPod:
    __test__ = False

    name: str
    netns: Path
    ip4: Ip
    ip6: Ip
    account: str = ""  # the pod's name when empty
    serial: str = "00000000"  # tells pods of one name apart

    @property
    def uid(self) -> str:
        return f"{self.serial}-{self.name}"

    @property
    def cookie(self) -> int:
        return netns_cookie(self.netns)

    def workload(self, **fields: Any) -> Workload:
        values = {
            "uid": WorkloadUid(f"Kubernetes//Pod/shop/{self.name}"),
            "name": self.name,
            "namespace": "shop",
            "addresses": (self.ip4, self.ip6),
            "service_account": self.name,
            "node": NODE,
            "tunnel_protocol": TunnelProtocol.HBONE,
        }
        return Workload(**(values | fields))

    def listeners(self) -> set[str]:
        """As "tcp 127.0.0.1:15001", of the sockets that listen in the pod."""
        text = run("nsenter", f"--net={self.netns}", "ss", "-Hlntu").stdout
        return {f"{line.split()[0]} {line.split()[4]}" for line in text.splitlines()}

    def sockets(self) -> list[str]:
        """The listening sockets by their inodes."""
        text = run("nsenter", f"--net={self.netns}", "ss", "-Hlntue").stdout
        return sorted(re.findall(r"ino:(\d+)", text))


class NodeAgent:
    """The listening end of ZDS. A test accepts the agent's connection and says what it wants."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(os.fspath(path))
        self._listener.listen(8)
        self._listener.settimeout(PATIENCE)
        self._peer: socket.socket | None = None

    def accept(self) -> zds_pb2.ZdsHello:
        self.hang_up()
        self._peer, _ = self._listener.accept()
        self._peer.settimeout(PATIENCE)
        return zds_pb2.ZdsHello.FromString(self._peer.recv(1024))

    def say(self, request: zds_pb2.WorkloadRequest | bytes, *descriptors: int) -> str:
        """The error of the acknowledgement."""
        assert self._peer is not None
        packet = request if isinstance(request, bytes) else request.SerializeToString()
        socket.send_fds(self._peer, [packet], list(descriptors))
        answer = self._peer.recv(1024)
        assert answer, "the agent hung up without an answer"
        return zds_pb2.WorkloadResponse.FromString(answer).ack.error

    def add(self, pod: TestPod) -> str:
        request = zds_pb2.WorkloadRequest()
        request.add.uid = pod.uid
        request.add.workload_info.name = pod.name
        request.add.workload_info.namespace = "shop"
        request.add.workload_info.service_account = pod.account or pod.name
        with pod.netns.open() as netns:
            return self.say(request, netns.fileno())

    def remove(self, pod: TestPod) -> str:
        request = zds_pb2.WorkloadRequest()
        getattr(request, "del").uid = pod.uid
        return self.say(request)

    def keep(self, pod: TestPod) -> str:
        return self.say(zds_pb2.WorkloadRequest(keep=zds_pb2.KeepWorkload(uid=pod.uid)))

    def snapshot_sent(self) -> str:
        return self.say(zds_pb2.WorkloadRequest(snapshot_sent=zds_pb2.SnapshotSent()))

    def start_with(self, *pods: TestPod) -> None:
        self.accept()
        for pod in pods:
            assert self.add(pod) == ""
        assert self.snapshot_sent() == ""

    def hang_up(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def close(self) -> None:
        self.hang_up()
        self._listener.close()


@dataclass
class Node:
    """One agent may run at a time (and orphans of earlier ones)."""

    name: str
    netns: Path
    cgroup: Path
    pins: Path
    directory: Path
    control: ControlPlane
    agent: NodeAgent
    capture: Capture
    pods: list[TestPod] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def pod(self, name: str) -> TestPod:
        number = len(self.pods) + 2
        netns = add_netns(f"{self.name}-{name}")
        pod = TestPod(name, netns, Ip(f"10.77.0.{number}"), Ip(f"fd77::{number}"))
        self.pods.append(pod)
        link_pod(self.netns, pod, f"p{number}")
        return pod

    def environment(self, **changes: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "NODE_NAME": NODE,
            "XDS_ADDRESS": f"https://{HOST}:{PORT}",
            "CA_ADDRESS": f"https://{HOST}:{PORT}",
            "XDS_ROOT_CA": str(self.control.root_file),
            "CA_ROOT_CA": str(self.control.root_file),
            "AUTH_TOKEN": str(self.directory / "token"),
            "INPOD_UDS": str(self.agent.path),
            "AMBIT_BPF_PINS": str(self.pins),
            "AMBIT_STATE_DIR": str(self.state),
            "TERMINATION_GRACE_PERIOD_SECONDS": "3",
            "GRPC_VERBOSITY": "NONE",
        } | changes

    def start(self, **changes: str) -> subprocess.Popen[bytes]:
        process = self.spawn("system", self.netns, [sys.executable, "-m", "ztunnel.agent"], self.environment(**changes))
        return process

    def spawn(
        self, group: str, netns: Path, command: list[str], environment: dict[str, str] | None = None, **streams: Any
    ) -> subprocess.Popen[bytes]:
        """In a cgroup of this node and a network namespace."""
        entry = ["nsenter", f"--net={netns}", "sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"']
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [*entry, str(self.cgroup / group), *command],
                env=environment,
                cwd=ROOT,
                **({"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL} | streams),
            )
        self.processes.append(process)
        return process

    def workers(self) -> set[int]:
        pids = (self.cgroup / "system" / "cgroup.procs").read_text().split()
        return {int(pid) for pid in pids if b"ztunnel.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()}

    def get(self, port: int, path: str, method: str = "GET") -> tuple[int, str]:
        """From an HTTP server of the agent. Raises OSError."""
        with self.netns.open() as netns:
            return in_netns(netns.fileno(), lambda: request(port, path, method))

    def dump(self) -> dict[str, Any]:
        return dict(json.loads(self.get(ports.ADMIN, "/config_dump")[1]))

    def certificates(self) -> dict[str, dict[str, Any]]:
        return {one["identity"]: one for one in self.dump()["certificates"]}

    def metrics(self) -> str:
        return self.get(ports.METRICS, "/metrics")[1]

    def readiness(self) -> tuple[int, str]:
        return self.get(ports.READINESS, "/healthz/ready")

    def ready(self) -> bool:
        return self.readiness()[0] == 200

    def enrol(self, *pods: TestPod) -> None:
        """What the node agent does once the agent has acknowledged a pod."""
        for pod in pods:
            with pod.netns.open() as netns:
                self.capture.attach_inbound(netns.fileno(), pod.netns.name)
            self.capture.enrol(pod.cookie)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            (self.cgroup / "cgroup.kill").write_text("1")
        for process in self.processes:
            process.kill()
            process.wait()
        eventually(lambda: "populated 0" in (self.cgroup / "cgroup.events").read_text(), "the end of all processes")
        for pod in self.pods:
            self.capture.detach_inbound(pod.netns.name)
        self.agent.close()
        self.control.stop()
        self.capture.close()


def request(port: int, path: str, method: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


@dataclass(frozen=True)
class Kernel:
    """The eBPF programs, loaded for a cgroup."""

    name: str
    cgroup: Path
    pins: Path


@contextlib.contextmanager
def loaded_kernel() -> Iterator[Kernel]:
    name = f"ambit-test-agent-{os.getpid()}"
    kernel = Kernel(name, cgroups.cgroup2_root() / name, Path("/sys/fs/bpf") / name)
    with contextlib.ExitStack() as undo:
        for group in (kernel.cgroup, kernel.cgroup / "system", kernel.cgroup / "pods"):
            group.mkdir()
            undo.callback(remove_cgroup, group)
        load(kernel.pins, kernel.cgroup)
        undo.callback(unload, kernel.pins)
        yield kernel


@contextlib.contextmanager
def new_node(kernel: Kernel, directory: Path) -> Iterator[Node]:
    name = f"{kernel.name}-{next(NUMBERS)}"
    with contextlib.ExitStack() as undo:
        undo.callback(remove_netns, name)
        netns = add_netns(name)
        inside(netns, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        (directory / "token").write_text("the-token\n")
        control = ControlPlane(netns, directory)
        control.start()
        agent = NodeAgent(directory / "zds.sock")
        node = Node(name, netns, kernel.cgroup, kernel.pins, directory, control, agent, Capture.open(kernel.pins))
        undo.callback(node.close)
        yield node


def add_netns(name: str) -> Path:
    run("ip", "netns", "add", name)
    netns = Path("/run/netns") / name
    inside(netns, "ip", "link", "set", "lo", "up")
    return netns


def remove_netns(prefix: str) -> None:
    for path in Path("/run/netns").glob(f"{prefix}*"):
        subprocess.run(["ip", "netns", "del", path.name], check=False)


def link_pod(node: Path, pod: TestPod, link: str) -> None:
    """A veth pair; the pod's default route and the node's host route lead through it."""
    batch(
        "node",
        node.name,
        [
            f"link add {link} type veth peer name eth0 netns {pod.netns.name}",
            f"addr add 10.77.0.1/32 dev {link}",
            f"addr add fd77::1/128 dev {link} nodad",
            f"link set {link} up",
            f"route add {pod.ip4} dev {link}",
            f"route add {pod.ip6} dev {link}",
        ],
    )
    batch(
        "pod",
        pod.netns.name,
        [
            f"addr add {pod.ip4}/32 dev eth0",
            f"addr add {pod.ip6}/128 dev eth0 nodad",
            "link set eth0 up",
            "route add 10.77.0.1 dev eth0",
            "route add default via 10.77.0.1 dev eth0",
            "route add fd77::1 dev eth0",
            "route add default via fd77::1 dev eth0",
        ],
    )


def batch(what: str, netns: str, commands: list[str]) -> None:
    result = subprocess.run(
        ["ip", "-n", netns, "-batch", "-"], input="\n".join(commands), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{what}: {result.stderr}"


def inside(netns: Path, *command: str) -> None:
    run("nsenter", f"--net={netns}", *command)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result


def load(pins: Path, cgroup: Path) -> None:
    command = ["/usr/bin/python3", "-m", "ebpf.loader", "load", "--pins", str(pins), "--cgroup", str(cgroup)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


def unload(pins: Path) -> None:
    command = ["/usr/bin/python3", "-m", "ebpf.loader", "unload", "--pins", str(pins)]
    subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    shutil.rmtree(pins, ignore_errors=True)


def remove_cgroup(group: Path) -> None:
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1")
    eventually(lambda: removed(group), f"the end of cgroup {group}")


def removed(group: Path) -> bool:
    group.rmdir()
    return True
