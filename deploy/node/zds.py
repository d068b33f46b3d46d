"""Hands pods to the node's ztunnel over Istio's ZDS (mesh/wire/zds.proto): the node agent listens, ztunnels connect.

Each connection first gets the snapshot: every pod that is to be served, with its network namespace; then what changes.
Messages go one at a time, each answered by an acknowledgement. While two ztunnels overlap (an upgrade), the newest one
is given pods, and all of them are told of removals.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from mesh.wire.generated import zds_pb2

logger = logging.getLogger("zds")

MAX_PACKET = 1024  # bytes, as in Istio
ACKNOWLEDGE_TIMEOUT = 30.0  # seconds; opening listeners takes milliseconds, a certificate is not waited for
BACKLOG = 8


class NotServed(Exception):
    """ztunnel does not serve a pod; the text says why."""


@dataclass(frozen=True, slots=True)
class Pod:
    """What ztunnel must know of a pod; `netns` opens its network namespace (the caller closes the descriptor)."""

    uid: str
    name: str
    namespace: str
    service_account: str
    netns: Callable[[], int]


class Connection:
    """One ztunnel. Every call is a question and its answer, one after the other."""

    def __init__(self, peer: socket.socket) -> None:
        self._peer = peer
        self._turn = asyncio.Lock()
        self._packets: asyncio.Queue[bytes] = asyncio.Queue()  # an empty one: ztunnel has gone
        self.served: set[str] = set()

    async def add(self, pod: Pod) -> None:
        """Returns once ztunnel serves the pod. Raises NotServed, or ConnectionError when ztunnel has gone."""
        info = zds_pb2.WorkloadInfo(name=pod.name, namespace=pod.namespace, service_account=pod.service_account)
        request = zds_pb2.WorkloadRequest(add=zds_pb2.AddWorkload(uid=pod.uid, workload_info=info))
        try:
            netns = pod.netns()
        except OSError as error:
            raise NotServed(f"the network namespace cannot be opened: {error}") from error
        try:
            await self._ask(request, [netns])
        finally:
            os.close(netns)
        self.served.add(pod.uid)

    async def delete(self, uid: str) -> None:
        self.served.discard(uid)
        await self._ask(zds_pb2.WorkloadRequest(**{"del": zds_pb2.DelWorkload(uid=uid)}), [])

    async def end_snapshot(self) -> None:
        await self._ask(zds_pb2.WorkloadRequest(snapshot_sent=zds_pb2.SnapshotSent()), [])

    async def greeting(self) -> None:
        """Raises ConnectionError unless ztunnel says hello in a version that we speak."""
        if zds_pb2.ZdsHello.FromString(await self._packet()).version != zds_pb2.V1:
            raise ConnectionError("ztunnel speaks another version of ZDS")

    async def read(self) -> None:
        """Takes in what ztunnel says, until it goes. Runs beside the questions."""
        loop = asyncio.get_running_loop()
        try:
            while packet := await loop.sock_recv(self._peer, MAX_PACKET):
                self._packets.put_nowait(packet)
        except OSError as error:
            logger.warning("reading from ztunnel: %s", error)
        finally:
            self._packets.put_nowait(b"")

    async def _ask(self, request: zds_pb2.WorkloadRequest, descriptors: list[int]) -> None:
        async with self._turn:
            try:
                socket.send_fds(self._peer, [request.SerializeToString()], descriptors)
                answer = zds_pb2.WorkloadResponse.FromString(await self._packet())
            except (OSError, DecodeError) as error:
                raise ConnectionError(f"ztunnel did not answer: {error}") from error
        if answer.ack.error:
            raise NotServed(answer.ack.error)

    async def _packet(self) -> bytes:
        try:
            packet = await asyncio.wait_for(self._packets.get(), ACKNOWLEDGE_TIMEOUT)
        except TimeoutError:
            raise ConnectionError(f"ztunnel did not answer within {ACKNOWLEDGE_TIMEOUT:.0f} s") from None
        if not packet:
            self._packets.put_nowait(b"")
            raise ConnectionError("ztunnel has gone")
        return packet


class ZdsServer:
    """`snapshot` gives the pods that a ztunnel that connects must serve; `changed` is called when what is served has
    changed by itself: a ztunnel came (its snapshot is through) or went."""

    def __init__(self, path: Path, snapshot: Callable[[], Iterable[Pod]], changed: Callable[[], None]) -> None:
        self._path, self._snapshot, self._changed = path, snapshot, changed
        self._connections: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    def start(self) -> None:
        """Raises OSError when the socket cannot be made."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(self._path))
        self._path.chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        self._spawn(self._accept(listener))

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._path.unlink(missing_ok=True)

    def serves(self, uid: str) -> bool:
        return bool(self._connections) and uid in self._connections[-1].served

    @property
    def connected(self) -> bool:
        return bool(self._connections)

    async def add(self, pod: Pod) -> None:
        """To the newest ztunnel. Raises NotServed."""
        if not self._connections:
            raise NotServed("ztunnel is not connected to the node agent")
        try:
            await self._connections[-1].add(pod)
        except ConnectionError as error:
            raise NotServed(str(error)) from error

    async def delete(self, uid: str) -> None:
        """From every ztunnel; one that has gone serves nothing any more."""
        for connection in list(self._connections):
            try:
                await connection.delete(uid)
            except (ConnectionError, NotServed) as error:
                logger.warning("pod %s could not be taken back: %s", uid, error)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            peer, _ = await loop.sock_accept(listener)
            peer.setblocking(False)
            self._spawn(self._serve(peer))

    async def _serve(self, peer: socket.socket) -> None:
        connection = Connection(peer)
        reading = asyncio.create_task(connection.read())
        try:
            await self._begin(connection)
            await reading
        except (ConnectionError, DecodeError) as error:
            logger.warning("a ztunnel was let go: %s", error)
        finally:
            reading.cancel()
            peer.close()
            if connection in self._connections:
                self._connections.remove(connection)
                self._changed()

    async def _begin(self, connection: Connection) -> None:
        await connection.greeting()
        for pod in self._snapshot():
            try:
                await connection.add(pod)
            except NotServed as error:
                logger.warning("pod %s/%s is not served: %s", pod.namespace, pod.name, error)
        await connection.end_snapshot()
        self._connections.append(connection)
        self._changed()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
