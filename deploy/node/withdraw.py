"""`withdraw`: the running agent is asked to take all pods out; without one, it is done here."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable

from controller.store import kinds
from controller.store.interface import Store
from deploy.node.admission import VERSION, Refused
from deploy.node.annotation import NOTHING, annotate, annotated
from deploy.node.enrolled_file import EnrolledFile
from deploy.node.home import LONGEST_WITHDRAWAL, remove_sockets, unload
from deploy.node.settings import Settings

log = logging.getLogger("withdraw")

GRACE = 10.0  # seconds beyond the agent's own limit, so that it is the one to say what is wrong


async def withdraw(settings: Settings, store: Callable[[Settings], Store]) -> None:
    """Raises Refused, StoreError, OSError."""
    if await _ask(settings):
        log.info("the node agent has taken all pods out of the mesh")
        return
    EnrolledFile(settings.enrolled_namespaces).remove()
    try:
        await _tell(settings.node, store(settings))  # first, so that nobody opens tunnels to pods that take none
    finally:
        log.info("%s", unload(settings.pins))
        remove_sockets(settings)


async def _tell(node: str, store: Store) -> None:
    for pod in annotated(await store.list(kinds.POD), node):
        await annotate(store, pod, NOTHING)


async def _ask(settings: Settings) -> bool:
    """Whether an agent was there to do it."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as stream:
        try:
            await loop.sock_connect(stream, str(settings.cni_socket))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        await loop.sock_sendall(stream, json.dumps({"version": VERSION, "command": "WITHDRAW"}).encode())
        async with asyncio.timeout(LONGEST_WITHDRAWAL + GRACE):
            answer = json.loads(await loop.sock_recv(stream, 4096) or "{}")
    if not answer.get("ok"):
        raise Refused(f"the node agent: {answer.get('reason', 'it ended before it was done')}")
    return True
