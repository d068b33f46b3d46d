"""The node agent's side of ZDS: pods are handed to the node's ztunnel over a UNIX socket (Istio: proto/zds.proto,
cni/pkg/nodeagent/ztunnelserver.go).

ztunnel connects, says hello and is told of every pod that it is to serve (the snapshot), then of each change. Each
packet is answered by exactly one acknowledgement. While one ztunnel replaces another both are connected: pods are
added to the newest, and removed from all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from mesh.wire.generated import zds_pb2

log = logging.getLogger("zds")

MAX_PACKET = 1024  # bytes, as in Istio
CREDENTIALS = struct.Struct("=iII")  # struct ucred: process, user, group
HELLO_TIMEOUT = 5.0  # seconds: it is the first thing that ztunnel sends
ACKNOWLEDGEMENT_TIMEOUT = 15.0  # opening listeners takes milliseconds: one that needs this long has hung
MOST_CONNECTIONS = 8  # an old and a new ztunnel are two


class NotServed(Exception):
    """ztunnel does not serve the pod; the text says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A pod that ztunnel is to serve."""

    uid: str
    name: str
    namespace: str
    service_account: str
    netns: os.PathLike[str]


class Connection:
    """One ztunnel. `served` are the pods that it has acknowledged, by uid, each with its network namespace."""

    def __init__(self, stream: socket.socket) -> None:
        self._socket = stream
        self._turn = asyncio.Lock()
        self.served: dict[str, os.PathLike[str]] = {}
        self.closed = asyncio.Event()

    async def greet(self) -> None:
        """Raises OSError, TimeoutError, NotServed: no proper hello came."""
        async with asyncio.timeout(HELLO_TIMEOUT):
            packet = await asyncio.get_running_loop().sock_recv(self._socket, MAX_PACKET)
        try:
            version = zds_pb2.ZdsHello.FromString(packet).version
        except DecodeError:
            version = zds_pb2.UNUSED_VERSION
        if version != zds_pb2.V1:
            raise NotServed(f"who connected does not speak version 1 of ZDS: {packet[:32]!r}")

    async def add(self, member: Member) -> None:
        """Raises NotServed, OSError (the pod's network namespace is gone, or ztunnel is)."""
        info = zds_pb2.WorkloadInfo(
            name=member.name, namespace=member.namespace, service_account=member.service_account
        )
        request = zds_pb2.WorkloadRequest(add=zds_pb2.AddWorkload(uid=member.uid, workload_info=info))
        netns = os.open(member.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await self._ask(request, [netns])
        finally:
            os.close(netns)
        self.served[member.uid] = member.netns

    async def delete(self, uid: str) -> None:
        """Raises NotServed, OSError."""
        self.served.pop(uid, None)
        request = zds_pb2.WorkloadRequest()
        getattr(request, "del").uid = uid  # the field has the name of a Python keyword
        await self._ask(request, [])

    @property
    def process(self) -> int:
        """At the other end; 0 if it is not visible from here."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        return int(CREDENTIALS.unpack(credentials)[0])

    async def snapshot_sent(self) -> None:
        await self._ask(zds_pb2.WorkloadRequest(snapshot_sent=zds_pb2.SnapshotSent()), [])

    def close(self) -> None:
        self.closed.set()
        self.served.clear()
        self._socket.close()

    async def _ask(self, request: zds_pb2.WorkloadRequest, descriptors: list[int]) -> None:
        """One packet and its answer. Whatever goes wrong on the socket ends the connection: its state is unknown."""
        async with self._turn:
            if self.closed.is_set():
                raise NotServed("ztunnel is not connected")
            try:
                socket.send_fds(self._socket, [request.SerializeToString()], descriptors)
                async with asyncio.timeout(ACKNOWLEDGEMENT_TIMEOUT):
                    packet = await asyncio.get_running_loop().sock_recv(self._socket, MAX_PACKET)
                response = zds_pb2.WorkloadResponse.FromString(packet)
            except (OSError, TimeoutError, DecodeError) as error:
                self.close()
                raise NotServed(f"ztunnel did not answer: {error or type(error).__name__}") from error
            except asyncio.CancelledError:
                self.close()  # the answer would be taken for that of the next packet
                raise
            if not packet:
                self.close()
                raise NotServed("ztunnel has ended the connection")
        if response.ack.error:
            raise NotServed(f"ztunnel: {response.ack.error}")

    async def watch(self) -> None:
        """Returns when ztunnel has gone; between packets it says nothing, so readable means ended.

        It looks through a descriptor of its own: an event loop has one reader per descriptor, and `_ask` reads too.
        """
        with self._socket.dup() as own:
            while not self.closed.is_set():
                await _readable(own)
                async with self._turn:
                    if self.has_ended():
                        self.close()

    def has_ended(self) -> bool:
        if self.closed.is_set():
            return True
        try:
            self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True  # the end, or a packet that nobody has asked for


class ZdsServer:
    """`members` are the pods for the snapshot; `changed` is called when a ztunnel has come or gone; `welcome` with the
    process of one that has come, before it is told anything, and may raise NotServed."""

    def __init__(
        self,
        path: Path,
        members: Callable[[], Iterable[Member]],
        changed: Callable[[], None],
        welcome: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._path, self._members, self._changed, self._welcomed = path, members, changed, welcome
        self._connections: list[Connection] = []  # oldest first
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Until cancelled. Raises OSError: the socket cannot be made."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
            listener.bind(str(self._path))
            os.chmod(self._path, 0o600)
            listener.listen(MOST_CONNECTIONS)
            while True:
                stream, _ = await asyncio.get_running_loop().sock_accept(listener)
                stream.setblocking(False)
                if len(self._tasks) >= MOST_CONNECTIONS:
                    stream.close()
                    continue
                task = asyncio.create_task(self._welcome(Connection(stream)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    @property
    def connected(self) -> int:
        """How many ztunnels are served."""
        return len(self._connections)

    def serves(self, uid: str, netns: os.PathLike[str] | None = None) -> bool:
        """Whether the newest ztunnel has said that it serves the pod (in this very namespace)."""
        found = self._connections[-1].served.get(uid) if self._connections else None
        return found is not None and (netns is None or found == netns)

    async def add(self, member: Member) -> None:
        """Raises NotServed, OSError."""
        if not self._connections:
            raise NotServed("ztunnel of this node is not connected")
        await self._connections[-1].add(member)

    async def delete(self, uid: str) -> None:
        """From every ztunnel. One that is gone, or does not know the pod, has let it go."""
        for each in list(self._connections):
            with suppress(NotServed):
                await each.delete(uid)

    async def _welcome(self, connection: Connection) -> None:
        try:
            await connection.greet()
            self._admit(connection)
            await self._tell(connection)
            await connection.watch()
        except (NotServed, OSError, TimeoutError) as error:
            log.warning("a connection of ztunnel ends: %s", error or type(error).__name__)
        finally:
            connection.close()
            if connection in self._connections:
                self._connections.remove(connection)
                log.info("a ztunnel has gone")
            self._changed()

    def _admit(self, connection: Connection) -> None:
        """A process id is used again only after its process has ended, and with that its connection."""
        self._welcomed(connection.process)
        if connection.has_ended():
            raise NotServed("the process that has connected ended at once")

    async def _tell(self, connection: Connection) -> None:
        """The snapshot. A pod that ztunnel refuses is tried again later, as any other."""
        for member in list(self._members()):
            try:
                await connection.add(member)
            except (NotServed, OSError) as error:
                log.warning("pod %s/%s: %s", member.namespace, member.name, error)
        await connection.snapshot_sent()
        self._connections.append(connection)
        log.info("a ztunnel is connected; it serves %d pods", len(connection.served))
        self._changed()


async def _readable(stream: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(stream, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(stream)
