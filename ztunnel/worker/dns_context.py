"""What the DNS proxy of one pod needs to know and to do, and the decision on one query."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.model.address import SocketAddress
from mesh.model.state import MeshState
from ztunnel.dns.message import (
    FORMAT_ERROR,
    LARGEST_MESSAGE,
    SERVER_FAILURE,
    Malformed,
    build_failure,
    build_reply,
    parse_query,
    payload_limit,
)
from ztunnel.dns.resolve import Client, Forward, Zone, resolve
from ztunnel.worker.loop import Loop

RESOLVER_TIMEOUT = 5.0  # seconds: what stub resolvers themselves wait before they ask the next one (resolv.conf(5))

COUNTED = (
    "dns_queries",
    "dns_answered",
    "dns_forwarded",
    "dns_failed",
    "dns_malformed",
    "dns_refused",
    "dns_undelivered",
)

OpenSocket = Callable[[int, int], socket.socket]
Resolver = Callable[[SocketAddress, socket.socket], SocketAddress | None]


@dataclass(slots=True, eq=False)
class DnsContext:
    """Shared by all queries of a pod."""

    loop: Loop
    mesh: MeshState
    client: Client
    zone: Zone
    chance: Callable[[], float]
    open_socket: OpenSocket
    """(family, SOCK_DGRAM or SOCK_STREAM) -> a non-blocking socket inside the pod's namespace. Raises OSError."""
    resolver: Resolver
    """(the app's socket, ours that heard it) -> the resolver that the app has addressed, None if nobody knows."""
    counts: Counter[str] = field(default_factory=Counter)

    def answer(self, data: bytes, datagram: bool) -> bytes | None:
        """The mesh's reply to one query; None when it is for the app's resolver."""
        self.counts["dns_queries"] += 1
        try:
            query = parse_query(data)
        except Malformed:
            self.counts["dns_malformed"] += 1
            return build_failure(data, FORMAT_ERROR)
        if query.question is None:
            return None
        found = resolve(query.question, self.client, self.mesh, self.zone, self.chance)
        if isinstance(found, Forward):
            return None
        self.counts["dns_answered"] += 1
        return build_reply(query, found, payload_limit(query) if datagram else LARGEST_MESSAGE)

    def failure(self, data: bytes) -> bytes:
        """The reply to a query that nobody could be asked, or nobody has answered."""
        self.counts["dns_failed"] += 1
        return build_failure(data, SERVER_FAILURE)
