"""Copies of a request that go to other services, and whose answers nobody waits for.

A copy never slows the request down: one that cannot keep up with the body is given up. So is one whose request never
becomes complete, or whose answer does not come.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

from mesh.model.balance import Unavailable
from waypoint.channel import Channel
from waypoint.exchange.exchange import HttpExchange
from waypoint.exchange.upstreams import Ticket, Upstreams, version_for
from waypoint.http.message import Requester, RequestHead, ResponseHead
from waypoint.plan.hop import hop_to_service
from waypoint.plan.world import World
from waypoint.routing.request import Client, Headers, Mirrored

MOST_HELD = 256 << 10  # bytes of a body that wait for a copy's connection
PATIENCE = 60.0  # seconds from the end of a request that its copy may take: it holds a connection meanwhile


class Copy:
    """One copy (upstreams.Caller)."""

    def __init__(
        self, upstreams: Upstreams, world: World, mirrored: Mirrored, head: RequestHead, client: Client
    ) -> None:
        self._upstreams = upstreams
        self._requester: Requester | None = None
        self._ticket: Ticket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._trailers: Headers = ()
        self._held: list[bytes] = []
        self._size = 0
        self._over = self._ended = False
        self._has_body = bool(head.length)
        request = mirrored.request
        hop = hop_to_service(world, mirrored.to.service, mirrored.to.port, random.random)
        if isinstance(hop, Unavailable):
            self._over = True
            return
        version = version_for(mirrored.to.protocol, head.version == "HTTP/2")
        sent = RequestHead(request.method, request.target, request.authority, request.headers, head.length)
        self._ticket = upstreams.open(hop, client, version, sent, self)

    def body(self, pieces: list[memoryview]) -> None:
        if self._over:
            return
        if self._requester is not None and not self._requester.congested:
            for piece in pieces:
                self._requester.write(piece)
            return
        self._size += sum(map(len, pieces))
        if self._requester is not None or self._size > MOST_HELD:
            self.give_up()
        else:
            self._held += [bytes(piece) for piece in pieces]

    def end(self, trailers: Headers) -> None:
        if self._over:
            return
        self._ended, self._trailers = True, trailers
        self._timer = self._upstreams.loop.call_later(PATIENCE, self.give_up)
        if self._requester is not None and self._has_body:
            self._requester.finish(trailers)

    def give_up(self) -> None:
        if self._over:
            return
        self._finish()
        if self._ticket is not None:
            self._ticket.cancel()
        if self._requester is not None:
            self._requester.cancel()

    def client_lost(self) -> None:
        """What is incomplete will never be complete."""
        if not self._ended:
            self.give_up()

    def _finish(self) -> None:
        self._over = True
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()

    # --- upstreams.Caller

    def opened(self, requester: Requester, reused: bool) -> None:
        self._ticket, self._requester = None, requester
        for data in self._held:
            requester.write(data)
        self._held.clear()
        if self._ended and self._has_body:
            requester.finish(self._trailers)

    def interim(self, status: int, headers: Headers) -> None: ...

    def response(self, head: ResponseHead) -> None: ...

    def response_body(self, pieces: list[memoryview]) -> None:
        if self._requester is not None:
            self._requester.acknowledge(sum(map(len, pieces)))

    def response_ended(self, trailers: Headers) -> None:
        self._finish()

    def response_failed(self, reason: str, reached: bool) -> None:
        self._finish()

    def server_drained(self) -> None: ...

    def upgraded(self, head: ResponseHead, channel: Channel, early: bytes) -> None:
        self._finish()
        channel.reset()


class Mirror:
    """An exchange and its copies (message.Exchange)."""

    def __init__(self, exchange: HttpExchange, copies: list[Copy]) -> None:
        self._exchange = exchange
        self._copies = copies

    @classmethod
    def around(
        cls,
        exchange: HttpExchange,
        upstreams: Upstreams,
        world: World,
        mirrors: Iterable[Mirrored],
        head: RequestHead,
        client: Client,
    ) -> Mirror:
        copies = [Copy(upstreams, world, mirrored, head, client) for mirrored in mirrors]
        if not head.length:
            for copy in copies:
                copy.end(())
        exchange.start()
        return cls(exchange, copies)

    def request_body(self, pieces: list[memoryview]) -> None:
        for copy in self._copies:
            copy.body(pieces)
        self._exchange.request_body(pieces)

    def request_ended(self, trailers: Headers) -> None:
        for copy in self._copies:
            copy.end(trailers)
        self._exchange.request_ended(trailers)

    def client_lost(self, reason: str) -> None:
        for copy in self._copies:
            copy.client_lost()
        self._exchange.client_lost(reason)

    def client_drained(self) -> None:
        self._exchange.client_drained()
