"""A node to play on: pods as network namespaces, cgroups below which the shipped programs run, and actors in them."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ebpf import cgroups
from ebpf.netns import netns_cookie, setns
from ebpf.node import Capture
from mesh.model import ports
from mesh.model.address import Ip, SocketAddress, from_kernel

ROOT = Path(__file__).parents[2]
LOADER = ("/usr/bin/python3", "-m", "ebpf.loader")
PATIENCE = 30.0  # seconds until an actor that says nothing has failed its test
NUMBERS = itertools.count(1)

V4, V6 = socket.AF_INET, socket.AF_INET6


@dataclass(frozen=True)
class Pod:
    netns: Path
    ip4: Ip
    ip6: Ip
    cookie: int

    def ip(self, family: int) -> Ip:
        return self.ip4 if family == V4 else self.ip6


class Actor:
    """A process that runs a generator. Each yield reports a value to the test and waits for its word to go on."""

    def __init__(self, body: Callable[[], Any], cgroup: Path, netns: Path | None) -> None:
        self.ours, theirs = socket.socketpair()
        self.ours.settimeout(PATIENCE)
        self.pid = os.fork()
        if self.pid == 0:
            self.ours.close()
            play(theirs, body, cgroup, netns)
        theirs.close()

    def report(self) -> Any:
        """What the actor yields next, or returns; raises what it raised."""
        size = struct.unpack("!I", self._read(4))[0]
        failed, value = pickle.loads(self._read(size))
        if failed:
            raise value
        return value

    def go(self, value: Any = None) -> None:
        send(self.ours, value)

    def next(self, value: Any = None) -> Any:
        self.go(value)
        return self.report()

    def passed(self) -> Any:
        """Its next report; it goes on at once."""
        value = self.report()
        self.go()
        return value

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        self.ours.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.ours.recv(size - len(data))
            if not piece:
                raise EOFError("the actor died")
            data += piece
        return data


def send(channel: socket.socket, value: Any) -> None:
    data = pickle.dumps(value)
    channel.sendall(struct.pack("!I", len(data)) + data)


def play(channel: socket.socket, body: Callable[[], Any], cgroup: Path, netns: Path | None) -> None:
    """The life of the child process; never returns."""
    try:
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        if netns is not None:
            enter(netns)
        perform(channel, body())
        os._exit(0)
    except BaseException as problem:
        with contextlib.suppress(BaseException):
            report_failure(channel, problem)
        os._exit(1)


def perform(channel: socket.socket, result: Any) -> None:
    if not hasattr(result, "send"):
        return send(channel, (False, result))
    value = None
    while True:
        try:
            reported = result.send(value)
        except StopIteration as end:
            return send(channel, (False, end.value))
        send(channel, (False, reported))
        header = channel.recv(4, socket.MSG_WAITALL)
        if len(header) < 4:
            return None
        value = pickle.loads(channel.recv(struct.unpack("!I", header)[0], socket.MSG_WAITALL))


def report_failure(channel: socket.socket, problem: BaseException) -> None:
    if isinstance(problem, OSError):
        return send(channel, (True, problem))
    send(channel, (True, RuntimeError("".join(traceback.format_exception(problem)))))


def enter(netns: Path) -> None:
    descriptor = os.open(netns, os.O_RDONLY)
    setns(descriptor)
    os.close(descriptor)


@dataclass
class Stage:
    """`a` and `b` are pods of the node, joined by a wire; `far` is at the end of another wire of `a`, off the node."""

    name: str
    cgroup: Path
    pins: Path
    a: Pod
    b: Pod
    capture: Capture
    actors: list[Actor] = field(default_factory=list)

    @property
    def pods_cgroup(self) -> Path:
        return self.cgroup / "pods"

    @property
    def ztunnel_cgroup(self) -> Path:
        return self.cgroup / "system"

    def app(self, pod: Pod, body: Callable[[], Any]) -> Actor:
        return self._start(body, self.pods_cgroup, pod)

    def ztunnel(self, pod: Pod, body: Callable[[], Any]) -> Actor:
        return self._start(body, self.ztunnel_cgroup, pod)

    def outside(self, pod: Pod, body: Callable[[], Any]) -> Actor:
        """In the pod's network namespace, but in no cgroup of the node: as an app without the mesh."""
        return self._start(body, cgroups.cgroup2_root(), pod)

    def _start(self, body: Callable[[], Any], cgroup: Path, pod: Pod) -> Actor:
        actor = Actor(body, cgroup, pod.netns)
        self.actors.append(actor)
        return actor

    def clear(self) -> None:
        for actor in self.actors:
            actor.kill()
        self.actors.clear()
        for cookie in self.capture.enrolled():
            self.capture.withdraw(cookie)
        for name in self.capture.attached_inbound():
            self.capture.detach_inbound(name)


def loader(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*LOADER, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def load(pins: Path, cgroup: Path) -> None:
    done = loader("load", "--pins", str(pins), "--cgroup", str(cgroup))
    assert done.returncode == 0, done.stderr


def unique_name() -> str:
    return f"ambit-test-{os.getpid()}-{next(NUMBERS)}"


@contextlib.contextmanager
def new_cgroup(name: str, *children: str) -> Iterator[Path]:
    path = cgroups.cgroup2_root() / name
    path.mkdir()
    try:
        for child in children:
            (path / child).mkdir()
        yield path
    finally:
        for child in children:
            (path / child).rmdir()
        path.rmdir()


@contextlib.contextmanager
def two_pods(name: str) -> Iterator[tuple[Pod, Pod]]:
    """Two network namespaces joined by a wire, both with IPv4 and IPv6."""
    first, second = f"{name}-a", f"{name}-b"
    try:
        for netns in (first, second):
            ip("netns", "add", netns)
        ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second)
        yield tuple(make_pod(netns, number) for netns, number in ((first, 2), (second, 3)))
    finally:
        for netns in (first, second):
            subprocess.run(["ip", "netns", "del", netns], check=False, capture_output=True)


def make_pod(netns: str, number: int) -> Pod:
    pod4, pod6 = Ip(f"10.244.0.{number}"), Ip(f"fd00:10::{number}")
    ip("-n", netns, "addr", "add", f"{pod4}/24", "dev", "eth0")
    ip("-n", netns, "addr", "add", f"{pod6}/64", "dev", "eth0", "nodad")
    ip("-n", netns, "link", "set", "lo", "up")
    ip("-n", netns, "link", "set", "eth0", "up")
    path = Path("/run/netns") / netns
    return Pod(path, pod4, pod6, netns_cookie(path))


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def new_stage() -> Iterator[Stage]:
    name = unique_name()
    pins = Path("/sys/fs/bpf") / name
    with new_cgroup(name, "pods", "system") as cgroup, two_pods(name) as (a, b):
        try:
            load(pins, cgroup)
            capture = Capture.open(pins)
            capture.exempt(cgroups.cgroup_id(cgroup / "system"))
            stage = Stage(name, cgroup, pins, a, b, capture)
            try:
                yield stage
            finally:
                stage.clear()
                capture.close()
        finally:
            loader("unload", "--pins", str(pins))


# --- what actors do


def listen(family: int, host: str, port: int, backlog: int = 1024, shared: bool = False) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(backlog)
    return listener


def address(name: tuple[Any, ...]) -> SocketAddress:
    return SocketAddress(from_kernel(name[0]), name[1])


def outbound_ztunnel(pins: Path) -> Callable[[], Iterator[Any]]:
    """Listens where captured connections arrive, and tells each client its original destination as text."""

    def body() -> Iterator[Any]:
        capture = Capture.open(pins)
        places = [("127.0.0.1", V4), ("::1", V6)]
        listeners = [listen(family, host, port) for host, family in places for port in (ports.OUTBOUND, ports.DNS)]
        connections: set[socket.socket] = set()
        yield "ready"
        while True:
            for ready in select.select([*listeners, *connections], [], [])[0]:
                if ready in connections:
                    if is_over(ready):
                        connections.remove(ready)
                    continue
                connection, _ = ready.accept()
                original = capture.original_destination(connection.fileno())
                connections.add(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(f"{ready.getsockname()[1]} {original}".encode())
                    connection.shutdown(socket.SHUT_WR)

    return body


def is_over(connection: socket.socket) -> bool:
    """Whether the other side has closed; then this side closes too."""
    try:
        if connection.recv(4096):
            return False
    except OSError:
        pass
    connection.close()
    return True


def told(connection: socket.socket) -> str:
    """All that the other side says."""
    data = b""
    while piece := connection.recv(4096):
        data += piece
    return data.decode()


def disconnect(connection: socket.socket) -> None:
    """connect() to AF_UNSPEC, which Python's socket module cannot say."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(connection.fileno(), bytes(16), 16):
        raise OSError(ctypes.get_errno(), "connect")
