"""Where the mesh runs, as far as the CLI must know: which nodes there are, and how to ask their loopback admin ports.

Local mode enters the node's network namespace. Nothing else in the CLI knows that there is more than one kind of home.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cli.errors import fail
from controller.store.interface import Kind, Object
from deploy.local import api
from mesh.model.ports import ADMIN

CONTROLLER = api.CONTROLLER
CONTROLLER_ADMIN = 15014
TIMEOUT = 5.0  # seconds; an admin answer takes milliseconds


class Home(Protocol):
    def nodes(self) -> Sequence[str]: ...

    def processes(self) -> dict[str, Any]:
        """What runs the mesh: by part its pid (0: not running), starts and lastEnd."""

    def objects(self, kind: Kind) -> Sequence[Object]:
        """All objects of a kind, in all namespaces."""

    def connect(self, node: str, port: int) -> socket.socket:
        """A TCP connection to a loopback port of a node. Raises OSError."""


@dataclass(frozen=True)
class LocalHome:
    """A mesh of `ambit local up`."""

    def nodes(self) -> Sequence[str]:
        api.require_running()
        return tuple(api.nodes())

    def processes(self) -> dict[str, Any]:
        return dict(api.status()["processes"])

    def objects(self, kind: Kind) -> Sequence[Object]:
        return asyncio.run(api.open_store().list(kind))

    def connect(self, node: str, port: int) -> socket.socket:
        """`node` may be the controller."""
        return api.in_node(node, _dial(port))


def _dial(port: int) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection(("127.0.0.1", port), TIMEOUT)


def home() -> Home:
    return LocalHome()


def chosen_nodes(place: Home, node: str) -> Sequence[str]:
    """All nodes, or the one that --node names."""
    nodes = place.nodes()
    if node and node not in nodes:
        fail(f"there is no node {node!r}; there are {', '.join(nodes)}")
    return [node] if node else nodes


def ask(place: Home, node: str, path: str, port: int = ADMIN) -> Any:
    """GET `path` from a node's admin port, as JSON. Ends the command with a sentence when it does not answer."""
    try:
        return ask_or_raise(place, node, path, port)
    except (OSError, http.client.HTTPException, ValueError) as problem:
        who = "the controller" if node == CONTROLLER else f"ztunnel of node {node}"
        fail(f"{who} does not answer on 127.0.0.1:{port} ({problem}); see ambit status")


def ask_or_raise(place: Home, node: str, path: str, port: int = ADMIN) -> Any:
    """As `ask`; raises OSError, HTTPException or ValueError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    connection.sock = place.connect(node, port)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status >= 400:
            raise OSError(f"HTTP {answer.status}: {body[:200].decode(errors='replace').strip()}")
        return json.loads(body)
    finally:
        connection.close()
