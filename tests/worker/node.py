"""Pods as network namespaces, real worker processes with a real feed, and apps as sockets inside the pods."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ebpf.netns import in_netns, netns_cookie
from mesh.identity.tls import TlsIdentity
from mesh.model import ports
from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.update import MeshUpdate
from mesh.model.workload import TunnelProtocol, Workload, WorkloadUid
from tests.identity.certificates_for_tests import Issuer
from ztunnel.agent.sockets import PodSockets, open_sockets
from ztunnel.channel import AgentChannel, ChannelBroken
from ztunnel.feed import (
    Certificate,
    Closed,
    Connection,
    Connections,
    DescribeConnections,
    Mesh,
    Opened,
    PodAdded,
    PodFailed,
    Ready,
    ToAgent,
    ToWorker,
)

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0  # seconds until a test that waits has failed
NUMBERS = itertools.count(1)
V4, V6 = socket.AF_INET, socket.AF_INET6

Result = TypeVar("Result")


@dataclass
class Pod:
    """A network namespace that is wired to the other pod's."""

    name: str
    netns_name: str
    netns: int
    cookie: int
    ip4: Ip
    ip6: Ip
    ledger: Path
    apps: list[socket.socket] = field(default_factory=list)
    service_account: str = ""

    @property
    def uid(self) -> WorkloadUid:
        return WorkloadUid(f"Kubernetes//Pod/shop/{self.name}")

    @property
    def identity(self) -> SpiffeId:
        return SpiffeId("cluster.local", "shop", self.service_account or self.name)

    def ip(self, family: int) -> Ip:
        return self.ip4 if family == V4 else self.ip6

    def address(self, port: int, family: int = V4) -> SocketAddress:
        return SocketAddress(self.ip(family), port)

    def workload(self, **changes: object) -> Workload:
        values = {
            "name": self.name,
            "namespace": "shop",
            "addresses": (self.ip4, self.ip6),
            "service_account": self.identity.service_account,
            "tunnel_protocol": TunnelProtocol.HBONE,
            "workload_name": self.name,
            "canonical_name": self.name,
            **changes,
        }
        return Workload(uid=self.uid, **values)  # type: ignore[arg-type]

    def socket(self, family: int = V4, kind: int = socket.SOCK_STREAM) -> socket.socket:
        sock = in_netns(self.netns, lambda: socket.socket(family, kind))
        sock.settimeout(PATIENCE)
        return sock

    def open_sockets(self) -> PodSockets:
        """What the agent opens for the worker."""
        return in_netns(self.netns, lambda: open_sockets(True, True))

    def listen(self, port: int, family: int = V4, host: str = "") -> socket.socket:
        listener = self.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host or self.ip(family), port))
        listener.listen(4096)
        self.apps.append(listener)
        return listener

    def dial(self, destination: SocketAddress) -> socket.socket:
        """As an app whose connection is captured."""
        family = V6 if ":" in destination.ip else V4
        sock = self.socket(family)
        sock.bind(("::1" if family == V6 else "127.0.0.1", 0))
        (self.ledger / str(sock.getsockname()[1])).write_text(str(destination))
        sock.connect(("::1" if family == V6 else "127.0.0.1", ports.OUTBOUND))
        return sock

    def dial_plainly(self, destination: SocketAddress) -> socket.socket:
        """Past the mesh."""
        sock = self.socket(V6 if ":" in destination.ip else V4)
        sock.connect((destination.ip, destination.port))
        return sock


class Worker:
    """A worker process and the agent's end of its feed."""

    def __init__(self, command: list[str], before: Callable[[], None] | None = None, **environment: str) -> None:
        """`command` gets the number of its descriptor as last argument; `before` runs in the new process."""
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                preexec_fn=before,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT)), **environment},
                pass_fds=[theirs.fileno()],
            )
        self._channel = AgentChannel(ours)
        self._lock = threading.Condition()
        self.messages: list[ToAgent] = []
        self.opened: list[Connection] = []
        self.closed: list[Connection] = []
        self.gone = False
        threading.Thread(target=self._read, daemon=True).start()

    def tell(self, message: ToWorker, descriptors: tuple[int, ...] = ()) -> None:
        self._channel.outbox.put(message, descriptors)
        while not self._channel.flush():
            time.sleep(0.001)

    def serve(self, pod: Pod) -> None:
        """Returns when the pod is served."""
        sockets = pod.open_sockets()
        self.tell(
            PodAdded(
                pod.uid, pod.name, "shop", pod.identity.service_account, pod.cookie, sockets.addresses, sockets.roles
            ),
            (pod.netns, *sockets.descriptors),
        )
        sockets.close()
        self.wait(lambda: self._serves(pod.uid), f"pod {pod.name} to be served")

    def update(self, *workloads: Workload, **changes: object) -> None:
        self.tell(Mesh(MeshUpdate(workloads=workloads, **changes)))  # type: ignore[arg-type]

    def certify(self, identity: SpiffeId, certificate: TlsIdentity) -> None:
        self.tell(Certificate(identity, certificate.chain, certificate.private_key, certificate.roots))

    def describe(self) -> Connections:
        number = next(NUMBERS)
        self.tell(DescribeConnections(number))

        def answer() -> Connections | None:
            found = [m for m in self.messages if isinstance(m, Connections) and m.number == number]
            return found[0] if found else None

        return self.wait(answer, "connections to be described")

    def ended(self, check: Callable[[Connection], bool] = lambda record: True) -> Connection:
        """The first record of a closed connection that fits."""
        return self.wait(lambda: next(filter(check, self.closed), None), "a record of a closed connection")

    def wait(self, condition: Callable[[], Result | None], what: str) -> Result:
        with self._lock:
            found = self._lock.wait_for(condition, PATIENCE)
        assert found, f"waited {PATIENCE:g} s for {what}"
        return found

    def tell_nonsense(self) -> None:
        """A whole frame that is no message."""
        self._channel._socket.sendall(b"\0\0\0\1\xc1")

    def leave(self) -> None:
        """The agent dies."""
        self._channel._socket.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens meanwhile it finds all at once."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _serves(self, uid: WorkloadUid) -> bool:
        failed = [m.reason for m in self.messages if isinstance(m, PodFailed) and m.uid == uid]
        assert not failed, failed
        ready = [m for m in self.messages if isinstance(m, Ready)]
        return bool(ready) and uid in ready[-1].pods

    def _read(self) -> None:
        poll = select.poll()  # which knows descriptors above 1023, too
        poll.register(self._channel.fileno(), select.POLLIN)
        while True:
            poll.poll()
            try:
                for message, _ in self._channel.receive():
                    self._note(message)
            except (ChannelBroken, OSError):
                with self._lock:
                    self.gone = True
                    self._lock.notify_all()
                return

    def _note(self, message: ToAgent) -> None:
        with self._lock:
            self.messages.append(message)
            if isinstance(message, Opened):
                self.opened += message.connections
            if isinstance(message, Closed):
                self.closed += message.connections
            self._lock.notify_all()


@dataclass
class Node:
    """Two pods, `a` and `b`, and the authority that certifies them."""

    a: Pod
    b: Pod
    authority: Issuer
    ledger: Path
    workers: list[Worker] = field(default_factory=list)

    def worker(self, *pods: Pod, **environment: str) -> Worker:
        """A worker that knows both pods and serves the given ones."""
        worker = self._start(**environment)
        self.workers.append(worker)
        worker.update(self.a.workload(), self.b.workload())
        for pod in pods:
            worker.certify(pod.identity, self.certificate(pod.identity))
            worker.serve(pod)
        return worker

    def _start(self, **environment: str) -> Worker:
        command = [sys.executable, "-m", "tests.worker.ledger_worker", str(self.ledger)]
        return Worker(command, **environment)

    def certificate(self, identity: SpiffeId, **options: object) -> TlsIdentity:
        return self.authority.identity(str(identity), **options)

    def clear(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.workers.clear()
        for pod in (self.a, self.b):
            for app in pod.apps:
                with contextlib.suppress(OSError):
                    app.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in accept(); close alone would not
                app.close()
            pod.apps.clear()


@contextlib.contextmanager
def new_node(directory: Path) -> Iterator[Node]:
    number = next(NUMBERS)
    names = [f"ambit-test-{os.getpid()}-w{number}{side}" for side in "ab"]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1])
        pods = [_make_pod(name, side, index, directory) for index, (name, side) in enumerate(zip(names, "ab"), 2)]  # noqa: B905
        node = Node(pods[0], pods[1], Issuer.root(), directory)
        try:
            yield node
        finally:
            node.clear()
            for pod in pods:
                os.close(pod.netns)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _make_pod(name: str, side: str, index: int, ledger: Path) -> Pod:
    ip4, ip6 = Ip(f"10.77.0.{index}"), Ip(f"fd77::{index}")
    run("ip", "-n", name, "addr", "add", f"{ip4}/24", "dev", "eth0")
    run("ip", "-n", name, "addr", "add", f"{ip6}/64", "dev", "eth0", "nodad")
    run("ip", "-n", name, "link", "set", "lo", "up")
    run("ip", "-n", name, "link", "set", "eth0", "up")
    path = Path("/run/netns") / name
    return Pod(side, name, os.open(path, os.O_RDONLY), netns_cookie(path), ip4, ip6, ledger)


def run(*command: str) -> None:
    subprocess.run(command, check=True)


# --- what apps do


def in_background(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def serving(listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    """Handles every connection on a thread of its own, until the listener is closed."""

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            in_background(lambda sock=sock: _handle(sock, handle))  # type: ignore[misc]

    listener.settimeout(None)
    in_background(accept)


def _handle(sock: socket.socket, handle: Callable[[socket.socket], None]) -> None:
    with sock, contextlib.suppress(OSError):
        handle(sock)


def echo(sock: socket.socket) -> None:
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def read_all(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(1 << 18):
        data += piece
    return bytes(data)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 18))
        if not piece:
            raise EOFError(f"only {len(data)} of {size} bytes came")
        data += piece
    return bytes(data)


def is_reset(dial: Callable[[], socket.socket]) -> bool:
    """Whether a connection is accepted by the mesh and then refused: told by connect() itself if it is fast enough."""
    try:
        with dial() as sock:
            sock.recv(1)
    except ConnectionResetError:
        return True
    return False


def reset(sock: socket.socket) -> None:
    """Closes with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
