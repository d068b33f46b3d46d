"""Connections of HTTP to endpoints, kept for the next request of the same client to the same endpoint.

What an endpoint speaks its port says. Where it does not, a client's HTTP/2 goes on as HTTP/2 if the endpoint answers in
it, and else as HTTP/1.1; no request is sent before that is known.

A connection belongs to one client (identity and address) and one endpoint: the CONNECT that opened it says whom it
serves, and the endpoint's policies and logs go by that. Clients never share one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from mesh.hbone.connect_headers import FORWARDED, SOURCE_IDENTITY, build_forwarded
from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.routing import AppProtocol
from waypoint.channel import Channel
from waypoint.http.http1_client import Http1Client
from waypoint.http.http2_client import Http2Client
from waypoint.http.message import Requester, RequestHead, ResponseUser
from waypoint.plan.hop import Hop
from waypoint.routing.replies import is_grpc
from waypoint.routing.request import Client
from waypoint.tcp import TcpOpening
from waypoint.tunnel.pool import Headers, Key, Opening, Pool

IDLE = 60.0  # seconds that a connection without requests is kept: shorter than servers keep theirs, as a rule
SWEEP = 15.0
MOST_CONNECTIONS = 1024  # of HTTP/1 to one endpoint for one client; beyond it requests fail: Envoy's circuit breaker
MOST_WAITING = 1024  # requests for one connection of HTTP/2
ANSWER = 2.0  # seconds that a server has for its SETTINGS, when it may speak HTTP/1.1 only
REMEMBERED = 60.0  # seconds for which an endpoint is not asked again
MOST_REMEMBERED = 4096  # endpoints


class Version(Enum):
    HTTP1 = "HTTP/1.1"
    HTTP2 = "HTTP/2"
    EITHER = "HTTP/2, if the endpoint speaks it"


def version_for(protocol: AppProtocol, client_speaks_http2: bool) -> Version:
    """By what the port is said to speak, else by what the client does."""
    if protocol in (AppProtocol.HTTP2, AppProtocol.GRPC):
        return Version.HTTP2
    return Version.EITHER if client_speaks_http2 else Version.HTTP1


class Caller(ResponseUser, Protocol):
    """Who sends a request: `opened` or `response_failed(..., reached=False)` is called once, unless it is cancelled."""

    def opened(self, requester: Requester, reused: bool) -> None:
        """The head has been sent."""


class Ticket(Protocol):
    def cancel(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Route:
    """What connections are shared by."""

    identity: SpiffeId | None
    ip: Ip
    address: SocketAddress
    identities: frozenset[SpiffeId]
    version: Version


class Dialler:
    """Opens channels to endpoints, on behalf of a client."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
        self._loop = loop
        self._pool = pool

    def dial(
        self,
        hop: Hop,
        client: Client,
        opened: Callable[[Channel], None],
        failed: Callable[[str], None],
    ) -> Opening | TcpOpening:
        if not hop.identities:
            return TcpOpening(self._loop, hop.address, opened, failed)
        headers: Headers = ((FORWARDED, build_forwarded(client.address, (hop.service or "").partition("/")[2])),)
        if client.identity is not None:
            headers = ((SOURCE_IDENTITY, str(client.identity)), *headers)
        return self._pool.open(Key(hop.tunnel, hop.identities), str(hop.address), headers, opened, failed)


class Upstreams:
    """All of them. Callers of `open` may be called back before it returns."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dialler: Dialler) -> None:
        self.loop = loop
        self.dialler = dialler
        self._http1: dict[Route, Http1Shelf] = {}
        self._http2: dict[Route, Http2Shelf] = {}
        self._only_http1: dict[SocketAddress, float] = {}  # endpoints, and when that was seen
        self._sweep: asyncio.TimerHandle | None = None

    def open(self, hop: Hop, client: Client, version: Version, head: RequestHead, caller: Caller) -> Ticket | None:
        if version is Version.EITHER and self._speaks_only_http1(hop.address):
            version = Version.HTTP1
        route = Route(client.identity, client.address.ip, hop.address, hop.identities, version)
        shelf: Http1Shelf | Http2Shelf
        if version is Version.HTTP1:
            shelf = self._http1.get(route) or self._http1.setdefault(route, Http1Shelf(self))
        else:
            shelf = self._http2.get(route) or self._http2.setdefault(
                route, Http2Shelf(self, asking=version is Version.EITHER)
            )
        if self._sweep is None:
            self._sweep = self.loop.call_later(SWEEP, self._sweep_idle)
        return shelf.open(hop, client, head, caller)

    def speaks_otherwise(self, address: SocketAddress) -> None:
        """An endpoint has answered HTTP/2 with something else."""
        if len(self._only_http1) >= MOST_REMEMBERED:
            self._only_http1.clear()
        self._only_http1[address] = self.loop.time()

    def _speaks_only_http1(self, address: SocketAddress) -> bool:
        seen = self._only_http1.get(address)
        return seen is not None and self.loop.time() - seen < REMEMBERED

    def close_idle(self) -> None:
        """Of connections that are in use each closes after its request."""
        self._sweep_before(float("inf"))

    @property
    def connections(self) -> int:
        return sum(shelf.count for _, shelf in self._shelves())

    def _shelves(self) -> Iterator[tuple[Route, Http1Shelf | Http2Shelf]]:
        yield from self._http1.items()
        yield from self._http2.items()

    def _sweep_idle(self) -> None:
        self._sweep = None
        self._sweep_before(self.loop.time() - IDLE)
        if self._http1 or self._http2:
            self._sweep = self.loop.call_later(SWEEP, self._sweep_idle)

    def _sweep_before(self, when: float) -> None:
        for route, shelf in list(self._shelves()):
            shelf.sweep(when)
            if not shelf.count:  # the version in `route` says which of them it is in
                self._http1.pop(route, None)
                self._http2.pop(route, None)


class Http1Shelf:
    """Idle connections of one route, the one that was used last on top, and how many there are in all."""

    __slots__ = ("_idle", "_upstreams", "count")

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._idle: list[Http1Client] = []
        self.count = 0

    def open(self, hop: Hop, client: Client, head: RequestHead, caller: Caller) -> Ticket | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._send(connection, head, caller, reused=True)
                return None
        if self.count >= MOST_CONNECTIONS:
            caller.response_failed(f"{self.count} connections to {hop.address} are in use already", False)
            return None
        self.count += 1

        def opened(channel: Channel) -> None:
            self._send(Http1Client(channel, self._idle_again, self._gone), head, caller, reused=False)

        def failed(reason: str) -> None:
            self.count -= 1
            caller.response_failed(reason, False)

        ticket = self._upstreams.dialler.dial(hop, client, opened, failed)
        return _Counted(self, ticket)

    def _send(self, connection: Http1Client, head: RequestHead, caller: Caller, *, reused: bool) -> None:
        try:
            connection.open(head, caller)
        except ValueError as error:
            connection.close()
            caller.response_failed(f"the request cannot be sent: {error}", False)
            return
        caller.opened(connection, reused)

    def _idle_again(self, connection: Http1Client) -> None:
        connection.idle_since = self._upstreams.loop.time()
        self._idle.append(connection)

    def _gone(self, connection: Http1Client) -> None:
        self.count -= 1
        if connection in self._idle:
            self._idle.remove(connection)

    def given_up(self) -> None:
        self.count -= 1

    def sweep(self, before: float) -> None:
        for connection in [one for one in self._idle if one.idle_since < before]:
            connection.close()


class _Counted:
    """An opening of a shelf."""

    __slots__ = ("_shelf", "_ticket")

    def __init__(self, shelf: Http1Shelf, ticket: Ticket) -> None:
        self._shelf = shelf
        self._ticket = ticket

    def cancel(self) -> None:
        self._ticket.cancel()
        self._shelf.given_up()


class _Waiting:
    """A request that waits for a connection of HTTP/2."""

    __slots__ = ("caller", "cancelled", "client", "head", "hop", "instead")

    def __init__(self, hop: Hop, client: Client, head: RequestHead, caller: Caller) -> None:
        self.hop = hop
        self.client = client
        self.head = head
        self.caller = caller
        self.cancelled = False
        self.instead: Ticket | None = None  # it waits for one of HTTP/1.1 by now

    def cancel(self) -> None:
        self.cancelled = True
        if self.instead is not None:
            self.instead.cancel()


class Http2Shelf:
    """Connections of one route; a further one is opened when all are full."""

    __slots__ = ("_asking", "_clients", "_dialling", "_upstreams", "_waiting")

    def __init__(self, upstreams: Upstreams, *, asking: bool) -> None:
        """`asking`: the endpoint may speak HTTP/1.1 only."""
        self._upstreams = upstreams
        self._asking = asking
        self._clients: list[Http2Client] = []
        self._waiting: deque[_Waiting] = deque()
        self._dialling = False

    @property
    def count(self) -> int:
        return len(self._clients) + self._dialling

    def open(self, hop: Hop, client: Client, head: RequestHead, caller: Caller) -> Ticket | None:
        for connection in self._clients:
            if connection.available:
                self._send(connection, head, caller)
                return None
        if len(self._waiting) >= MOST_WAITING:
            caller.response_failed(f"{len(self._waiting)} requests wait for {hop.address} already", False)
            return None
        waiting = _Waiting(hop, client, head, caller)
        self._waiting.append(waiting)
        if not self._dialling:
            self._dialling = True
            self._upstreams.dialler.dial(hop, client, self._opened, self._failed)
        return waiting

    def _opened(self, channel: Channel) -> None:
        self._dialling = False
        loop = self._upstreams.loop
        connection = Http2Client(loop, channel, self._room, self._gone, asking=self._asking)
        if self._asking:
            loop.call_later(ANSWER, connection.give_up)
        self._clients.append(connection)
        self._room(connection)

    def _failed(self, reason: str) -> None:
        self._dialling = False
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if not one.cancelled:
                one.caller.response_failed(reason, False)

    def _room(self, connection: Http2Client) -> None:
        while self._waiting and connection.available:
            one = self._waiting.popleft()
            if not one.cancelled:
                self._send(connection, one.head, one.caller)
        if not connection.streams:
            connection.idle_since = self._upstreams.loop.time()

    def _send(self, connection: Http2Client, head: RequestHead, caller: Caller) -> None:
        try:
            request = connection.open(head, caller)
        except ValueError as error:
            caller.response_failed(f"the request cannot be sent: {error}", False)
            return
        caller.opened(request, False)

    def _gone(self, connection: Http2Client) -> None:
        if connection in self._clients:
            self._clients.remove(connection)
        if connection.unproven:
            self._go_on_without(connection)
            return
        if self._waiting and not self._clients and not self._dialling:
            self._failed("the connection has gone")

    def _go_on_without(self, connection: Http2Client) -> None:
        """The endpoint speaks something else, or nothing; nothing was sent to it. What is gRPC is nothing else."""
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            if one.cancelled:
                continue
            if connection.speaks_otherwise:
                self._upstreams.speaks_otherwise(one.hop.address)
            if is_grpc(one.head.headers):
                one.caller.response_failed("the endpoint does not speak HTTP/2", False)
            else:
                one.instead = self._upstreams.open(one.hop, one.client, Version.HTTP1, one.head, one.caller)

    def sweep(self, before: float) -> None:
        for connection in [one for one in self._clients if not one.streams and one.idle_since < before]:
            connection.drain()
