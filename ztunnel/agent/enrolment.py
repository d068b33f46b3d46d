"""The connection to the node agent: pods come and go by its word (reference: Istio's ZDS, src/inpod/statemanager.rs).

It is taken up again for ever; while it is away, the pods that are here go on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from mesh.runtime.backoff import Backoff
from ztunnel.agent import zds
from ztunnel.agent.pods import RETRY_AFTER, Pod, PodError, Pods
from ztunnel.channel import receive_descriptors

BACKOFF_START, BACKOFF_CAP = 0.02, 5.0  # seconds; Istio goes to 15, but each one is a pod that waits to start

log = logging.getLogger("enrolment")


class Enrolment:
    """`connected` is told when the connection and its snapshot are there, and when not (with the reason);
    `prepared` waits, for as long as is sensible, until a pod that is served can also be reached."""

    def __init__(
        self,
        path: Path,
        pods: Pods,
        connected: Callable[[str], None],
        prepared: Callable[[Pod], Awaitable[None]],
    ) -> None:
        self._path = path
        self._pods = pods
        self._connected = connected
        self._prepared = prepared
        self._busy = asyncio.Lock()  # one change of the pods at a time: an action or a retry

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._retry_for_ever())
            group.create_task(self._converse_for_ever())

    async def _converse_for_ever(self) -> None:
        backoff = Backoff(BACKOFF_START, BACKOFF_CAP)
        reported = ""
        while True:
            try:
                await self._converse(backoff)
            except (OSError, zds.ZdsError, EOFError) as error:
                reason = f"node agent at {self._path}: {error}"
            except Exception as error:  # whatever it sent, the pods that are here go on
                log.exception("node agent at %s", self._path)
                reason = f"node agent at {self._path}: internal error {type(error).__name__}"
            if reason != reported:
                log.warning("%s", reason)
            reported = reason
            self._connected(reason)
            await asyncio.sleep(backoff.after_failure(random.random()))

    async def _converse(self, backoff: Backoff) -> None:
        """Until the connection ends, which always raises."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as sock:
            sock.connect(os.fspath(self._path))
            sock.send(zds.hello())
            session = zds.Session()
            while True:
                packet, descriptors = await _receive(sock)
                try:
                    error = await self._handle(session, packet, descriptors)
                except zds.ZdsError as broken:
                    await _send(sock, zds.acknowledgement(str(broken)))
                    raise
                await _send(sock, zds.acknowledgement(error))
                if session.synced:
                    backoff.succeeded()
                    self._connected("")

    async def _handle(self, session: zds.Session, packet: bytes, descriptors: list[int]) -> str:
        """The error to acknowledge with."""
        try:
            action = session.received(packet, descriptors)
        except BaseException:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        async with self._busy:
            try:
                await self._act(action)
            except PodError as error:
                return str(error)
        return ""

    async def _act(self, action: zds.Action) -> None:
        match action:
            case zds.Add():
                await self._prepared(await self._pods.add(action))
            case zds.Remove(uid=uid):
                self._pods.remove(uid)
            case zds.Keep(uid=uid):
                if self._pods.get(uid) is None:
                    raise PodError(f"pod {uid} is not known here, so it cannot be kept")
            case zds.Synced(uids=uids):
                self._pods.keep_only(uids)

    async def _retry_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RETRY_AFTER)
            for pod in self._pods.pending:
                async with self._busy:
                    await self._pods.retry(pod.uid)


async def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """One packet. Raises EOFError at the end."""
    while True:
        try:
            packet, descriptors, _ = receive_descriptors(sock, zds.MAX_PACKET + 1)
        except BlockingIOError:
            await _ready(sock, asyncio.get_running_loop().add_reader, asyncio.get_running_loop().remove_reader)
            continue
        if not packet and not descriptors:
            raise EOFError("the connection was closed")
        return packet, descriptors


async def _send(sock: socket.socket, packet: bytes) -> None:
    while True:
        try:
            sock.send(packet)
            return
        except BlockingIOError:
            await _ready(sock, asyncio.get_running_loop().add_writer, asyncio.get_running_loop().remove_writer)


async def _ready(sock: socket.socket, add: Callable[..., None], remove: Callable[[int], bool]) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(sock.fileno(), _done, future)
    try:
        await future
    finally:
        remove(sock.fileno())


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
