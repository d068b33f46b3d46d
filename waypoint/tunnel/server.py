"""Tunnels that peers open to this waypoint, and the CONNECT requests on them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mesh.hbone import SERVER_LIMITS, BadRequest, ConnectRequest, Limits, Role
from mesh.identity.errors import PeerRejected, TlsFailed
from mesh.identity.peers import check_client
from mesh.identity.tls import TlsIdentity, TlsSession, server_context
from mesh.model.address import SocketAddress, from_kernel
from mesh.model.identity import SpiffeId
from waypoint.streams import Stream
from waypoint.tunnel.tunnel import STREAM_WINDOW, Tunnel

MOST_TUNNELS = 16_384  # of all peers; beyond it new ones are refused
MOST_OF_ONE_ADDRESS = 256  # an honest ztunnel opens one for every hundred connections
MOST_HANDSHAKES = 1024  # under way at once; beyond it the oldest is cut, so that slow ones shut nobody out
IDLE = 600.0  # seconds that a peer may hold a tunnel without streams: twice as long as peers of our kind do


@dataclass(slots=True)
class Connect:
    """A CONNECT that waits for its answer: exactly one of `accept` and `refuse` has to be called, once."""

    request: ConnectRequest
    peer: SpiffeId
    remote: SocketAddress
    tunnel: ServerTunnel
    stream: Stream
    number: int

    @property
    def gave_up(self) -> bool:
        return not self.tunnel.carries(self.number)

    def accept(self, headers: Mapping[str, str] | None = None) -> Stream:
        """200: the stream is a channel now."""
        self.tunnel.answer(self.number, 200, headers or {}, end=False)
        return self.stream

    def refuse(self, status: int) -> None:
        self.tunnel.answer(self.number, status, {}, end=True)


class ServerTunnel(Tunnel):
    """A tunnel that a peer opened."""

    role: ClassVar[Role] = Role.SERVER
    limits: ClassVar[Limits] = replace(SERVER_LIMITS, initial_window=STREAM_WINDOW, stream_window=STREAM_WINDOW)

    def __init__(self, owner: Tunnels, session: TlsSession, trust_domain: str) -> None:
        super().__init__(owner.loop, session)
        self._owner = owner
        self._trust_domain = trust_domain
        self.remote = SocketAddress(from_kernel("0.0.0.0"), 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        host, port = transport.get_extra_info("peername")[:2]
        self.remote = SocketAddress(from_kernel(host), port)
        if not self._owner.admits(self):
            self.closed = True
            transport.abort()  # type: ignore[attr-defined]
            return
        super().connection_made(transport)

    def answer(self, stream: int, status: int, headers: Mapping[str, str], *, end: bool) -> None:
        if self._connection is None or not self.carries(stream):
            return
        self._connection.respond(stream, status, headers.items(), end=end)
        self.mark()
        if end:
            self.release(stream)

    def request_received(self, stream: int, headers: dict[str, str], ended: bool) -> None:
        found = self.streams[stream] = Stream(self, stream)
        found.in_ended = ended
        assert self.peer is not None
        try:
            request = ConnectRequest.parse(headers)
        except BadRequest:
            self.answer(stream, 400, {}, end=True)
            return
        self._owner.arrived(Connect(request, self.peer, self.remote, self, found, stream))

    def _check_peer(self, session: TlsSession) -> SpiffeId:
        return check_client(session.peer_identities(), self._trust_domain)

    def _established(self) -> None:
        self._owner.established(self)

    def _gone(self, reason: str) -> None:
        self._owner.gone(self, reason)

    def _room_made(self) -> None: ...

    def _most_idle(self) -> float:
        return IDLE


class Tunnels:
    """All tunnels of peers to this process, and its listener's factory."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        identity: Callable[[], TlsIdentity | None],
        trust_domain: str,
        arrived: Callable[[Connect], None],
    ) -> None:
        """`identity` gives the certificate of now, or None: then nobody is let in."""
        self.loop = loop
        self.arrived = arrived
        self._identity = identity
        self._trust_domain = trust_domain
        self._open: set[ServerTunnel] = set()
        self._handshaking: dict[ServerTunnel, None] = {}  # the oldest first
        self._of_address: Counter[str] = Counter()
        self.refused = 0

    def protocol(self) -> asyncio.BaseProtocol:
        """For the listener: one for each connection that is accepted."""
        identity = self._identity()
        if identity is None:
            return _Refused()
        try:
            session = TlsSession(server_context(identity), server=True)
        except (TlsFailed, PeerRejected):
            return _Refused()
        return ServerTunnel(self, session, self._trust_domain)

    def admits(self, tunnel: ServerTunnel) -> bool:
        ip = tunnel.remote.ip
        if len(self._open) >= MOST_TUNNELS or self._of_address[ip] >= MOST_OF_ONE_ADDRESS:
            self.refused += 1
            return False
        if len(self._handshaking) >= MOST_HANDSHAKES:
            next(iter(self._handshaking)).fail("too many TLS handshakes at once")
        self._open.add(tunnel)
        self._handshaking[tunnel] = None
        self._of_address[ip] += 1
        return True

    def established(self, tunnel: ServerTunnel) -> None:
        self._handshaking.pop(tunnel, None)

    def gone(self, tunnel: ServerTunnel, reason: str) -> None:
        self._handshaking.pop(tunnel, None)
        if tunnel in self._open:
            self._open.remove(tunnel)
            self._of_address[tunnel.remote.ip] -= 1
            if not self._of_address[tunnel.remote.ip]:
                del self._of_address[tunnel.remote.ip]

    @property
    def count(self) -> int:
        return len(self._open)

    @property
    def streams(self) -> int:
        return sum(len(tunnel.streams) for tunnel in self._open)

    def retire(self) -> None:
        """GOAWAY to all: what is under way may end."""
        for tunnel in list(self._open):
            tunnel.retire()

    def cut(self, reason: str) -> None:
        for tunnel in list(self._open):
            tunnel.fail(reason)


class _Refused(asyncio.Protocol):
    """A connection that comes while there is no certificate to prove ourselves with."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.abort()  # type: ignore[attr-defined]
