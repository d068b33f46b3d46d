"""Copies of a request that go to other services, and whose answers nobody waits for.

A copy never slows the request down: one that cannot keep up with the body is given up.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from mesh.model.balance import Unavailable
from mesh.model.routing import AppProtocol
from waypoint.channel import Channel
from waypoint.exchange.exchange import HttpExchange
from waypoint.exchange.upstreams import Ticket, Upstreams
from waypoint.http.message import Requester, RequestHead, ResponseHead
from waypoint.plan.hop import hop_to_service
from waypoint.plan.world import World
from waypoint.routing.request import Client, Headers, Mirrored

MOST_HELD = 256 << 10  # bytes of a body that wait for a copy's connection


class Copy:
    """One copy (upstreams.Caller)."""

    def __init__(
        self, upstreams: Upstreams, world: World, mirrored: Mirrored, head: RequestHead, client: Client
    ) -> None:
        self._requester: Requester | None = None
        self._ticket: Ticket | None = None
        self._held: list[bytes] = []
        self._size = 0
        self._over = self._ended = False
        self._has_body = bool(head.length)
        request = mirrored.request
        hop = hop_to_service(world, mirrored.to.service, mirrored.to.port, random.random)
        if isinstance(hop, Unavailable):
            self._over = True
            return
        http2 = mirrored.to.protocol in (AppProtocol.HTTP2, AppProtocol.GRPC) or head.version == "HTTP/2"
        sent = RequestHead(request.method, request.target, request.authority, request.headers, head.length)
        self._ticket = upstreams.open(hop, client, http2, sent, self)

    def body(self, pieces: list[memoryview]) -> None:
        if self._over:
            return
        if self._requester is not None and not self._requester.congested:
            for piece in pieces:
                self._requester.write(piece)
            return
        self._size += sum(map(len, pieces))
        if self._requester is not None or self._size > MOST_HELD:
            self._give_up()
        else:
            self._held += [bytes(piece) for piece in pieces]

    def end(self, trailers: Headers) -> None:
        self._ended = True
        if self._requester is not None and self._has_body and not self._over:
            self._requester.finish(trailers)

    def _give_up(self) -> None:
        self._over = True
        if self._ticket is not None:
            self._ticket.cancel()
        if self._requester is not None:
            self._requester.cancel()

    # --- upstreams.Caller

    def opened(self, requester: Requester, reused: bool) -> None:
        self._ticket, self._requester = None, requester
        for data in self._held:
            requester.write(data)
        self._held.clear()
        if self._ended and self._has_body:
            requester.finish()

    def interim(self, status: int, headers: Headers) -> None: ...

    def response(self, head: ResponseHead) -> None: ...

    def response_body(self, pieces: list[memoryview]) -> None:
        if self._requester is not None:
            self._requester.acknowledge(sum(map(len, pieces)))

    def response_ended(self, trailers: Headers) -> None:
        self._over = True

    def response_failed(self, reason: str, reached: bool) -> None:
        self._over = True

    def server_drained(self) -> None: ...

    def upgraded(self, head: ResponseHead, channel: Channel, early: bytes) -> None:
        self._over = True
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
        """The copies go on as far as the request came."""
        self._exchange.client_lost(reason)

    def client_drained(self) -> None:
        self._exchange.client_drained()
