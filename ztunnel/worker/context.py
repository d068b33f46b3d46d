"""What every connection of a worker shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mesh.model.address import SocketAddress
from mesh.model.state import MeshState
from ztunnel.worker.arrivals import Arrivals
from ztunnel.worker.certificates import Certificates
from ztunnel.worker.connections import Book
from ztunnel.worker.lingering import Lingering
from ztunnel.worker.loop import Loop
from ztunnel.worker.settings import Settings


class Capture(Protocol):
    """What the kernel programs know (ebpf.node.Capture)."""

    def original_destination(self, socket_fd: int) -> SocketAddress | None:
        """What the app dialled whose connection was accepted as `socket_fd`; None when it was not captured."""

    def dns_resolver(self, netns_cookie: int, source: SocketAddress) -> SocketAddress | None:
        """Whom the UDP query that was just received from `source` was meant for."""

    def present_client(self, socket_fd: int, client: SocketAddress) -> None:
        """Before connect: the app that is dialled sees `client` as its peer. Raises OSError."""


class OpenTunnel(Protocol):
    def unsent(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Context:
    loop: Loop
    settings: Settings
    mesh: MeshState
    capture: Capture
    certificates: Certificates
    arrivals: Arrivals
    book: Book
    lingering: Lingering
    chance: Callable[[], float]
    tunnels: set[OpenTunnel] = field(default_factory=set)  # from their first byte until they are closed
