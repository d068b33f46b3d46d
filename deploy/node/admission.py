"""The node agent's side of the CNI plugin's socket: a new pod is held until it is captured.

SOCK_SEQPACKET, one JSON request and one JSON answer per connection (deploy/cni has the other side):

    {"version": 1, "command": "ADD" | "DEL", "podNamespace", "podName", "podUid", "netns", "containerId", "addresses"}
    {"ok": true} | {"ok": false, "reason": "one sentence"}

`WITHDRAW`, which only `python -m deploy.node withdraw` sends, takes all pods out of the mesh and ends the capture.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from mesh.model.address import Ip, canonical

log = logging.getLogger("admission")

VERSION = 1
MAX_REQUEST = 16384  # bytes: names are at most 253, paths 4096, and a pod has few addresses
REQUEST_TIMEOUT = 5.0  # seconds: the request is the first thing that the plugin sends
MOST_CONNECTIONS = 256  # the kubelet starts at most as many pods at once as the node has (110 by default)


class Refused(Exception):
    """The answer is no; the text says why, to whoever reads the pod's events."""


@dataclass(frozen=True, slots=True)
class Request:
    command: str
    namespace: str = ""
    name: str = ""
    uid: str = ""
    netns: str = ""
    container: str = ""
    addresses: tuple[Ip, ...] = ()


Handler = Callable[[Request], Awaitable[None]]


def parse(packet: bytes) -> Request:
    """Raises Refused."""
    try:
        said = json.loads(packet)
    except (ValueError, RecursionError) as error:
        raise Refused(f"the request is not JSON: {error}") from error
    if not isinstance(said, dict) or said.get("version") != VERSION:
        raise Refused(f"the request is not of version {VERSION} of the protocol")
    return Request(
        command=_text(said, "command"),
        namespace=_text(said, "podNamespace"),
        name=_text(said, "podName"),
        uid=_text(said, "podUid"),
        netns=_text(said, "netns"),
        container=_text(said, "containerId"),
        addresses=_addresses(said.get("addresses") or []),
    )


def _text(said: dict[str, object], name: str) -> str:
    value = said.get(name, "")
    if not isinstance(value, str) or "\0" in value:
        raise Refused(f"{name} is not a text")
    return value


def _addresses(said: object) -> tuple[Ip, ...]:
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        raise Refused("addresses is not a list of texts")
    try:
        return tuple(canonical(each.partition("/")[0]) for each in said)
    except ValueError as error:
        raise Refused(f"addresses: {error}") from error


class AdmissionServer:
    """`handlers` by command; each returns when the answer is yes, and raises Refused when it is no."""

    def __init__(self, path: Path, handlers: dict[str, Handler]) -> None:
        self._path, self._handlers = path, handlers
        self._tasks: set[asyncio.Task[None]] = set()
        self.answered = {"ok": 0, "refused": 0}

    async def serve(self) -> None:
        """Until cancelled. Raises OSError: the socket cannot be made."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.parent.chmod(0o700)  # who may connect may hold pods back, and take them out
        self._path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as listener:
            listener.bind(str(self._path))
            os.chmod(self._path, 0o600)
            listener.listen(MOST_CONNECTIONS)
            try:
                while True:
                    await self._accept(listener)
            finally:
                for task in self._tasks:
                    task.cancel()

    async def _accept(self, listener: socket.socket) -> None:
        stream, _ = await asyncio.get_running_loop().sock_accept(listener)
        stream.setblocking(False)
        if len(self._tasks) >= MOST_CONNECTIONS:
            stream.close()  # as if nobody were here: the plugin refuses what should be enrolled
            return
        task = asyncio.create_task(self._converse(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, stream: socket.socket) -> None:
        with stream:
            try:
                answer = await self._answer(stream)
                await asyncio.get_running_loop().sock_sendall(stream, json.dumps(answer).encode())
            except (OSError, TimeoutError) as error:
                log.warning("a conversation with the CNI plugin ended: %s", error or type(error).__name__)

    async def _answer(self, stream: socket.socket) -> dict[str, object]:
        async with asyncio.timeout(REQUEST_TIMEOUT):
            packet = await asyncio.get_running_loop().sock_recv(stream, MAX_REQUEST)
        try:
            request = parse(packet)
            handler = self._handlers.get(request.command)
            if handler is None:
                raise Refused(f"command {request.command!r} is not known")
            await handler(request)
        except Refused as refusal:
            self.answered["refused"] += 1
            log.warning("refused: %s", refusal)
            return {"ok": False, "reason": str(refusal)}
        self.answered["ok"] += 1
        return {"ok": True}
