"""Requests of one connection: read, judged, routed, and sent on or answered here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import lru_cache

from mesh.model.balance import Unavailable
from mesh.model.workload import ServiceKey, WorkloadUid
from waypoint.exchange.exchange import DENIED, HttpExchange, Record
from waypoint.exchange.mirror import Mirror
from waypoint.exchange.replies import send_reply
from waypoint.exchange.upstreams import Upstreams, Version, version_for
from waypoint.http.fields import CLIENT_CERTIFICATE
from waypoint.http.message import Exchange, RequestHead, Responder
from waypoint.plan.hop import Hop, hop_to_service, hop_to_workload
from waypoint.plan.target import WorkloadTarget
from waypoint.routing.paths import BadTarget, Target, read_target
from waypoint.routing.replies import denied, is_grpc, local_reply
from waypoint.routing.request import Destination, Forward, Headers, Reply, Request
from waypoint.serve.connection import Arrival

REQUEST_ID = "x-request-id"
LONGEST_REMEMBERED = 256  # characters of a target that is remembered as read
NO_ROUTE, BAD_REQUEST = "NR", "DPE"

_remembered = lru_cache(maxsize=2048)(read_target)
_random = random.random


class Live:
    """Requests that are under way: what they were allowed for may change while they last."""

    def __init__(self) -> None:
        self._exchanges: dict[Record, tuple[HttpExchange, Arrival, Request]] = {}

    def add(self, record: Record, exchange: HttpExchange, arrival: Arrival, request: Request) -> None:
        self._exchanges[record] = exchange, arrival, request

    def remove(self, record: Record) -> None:
        self._exchanges.pop(record, None)

    def judge_again(self) -> None:
        for exchange, arrival, request in list(self._exchanges.values()):
            denial = arrival.judge(request)
            if denial is not None and not exchange.over:
                exchange.cut(denial.reason)


class Nothing:
    """The exchange of a request that has been answered already."""

    def request_body(self, pieces: list[memoryview]) -> None: ...

    def request_ended(self, trailers: Headers) -> None: ...

    def client_lost(self, reason: str) -> None: ...

    def client_drained(self) -> None: ...


NOTHING = Nothing()


class Requests:
    """Of one connection. `serve` is what the codecs call; `finished` gets the record of each request."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        arrival: Arrival,
        upstreams: Upstreams,
        live: Live,
        finished: Callable[[Record, Arrival], None],
    ) -> None:
        self._loop = loop
        self._live = live
        self._arrival = arrival
        self._upstreams = upstreams
        self._finished = finished

    def serve(self, head: RequestHead, responder: Responder) -> Exchange:
        headers = self._own_headers(head.headers)
        record = Record(
            self._arrival.client, head.method, head.authority, head.target, head.version, self._loop.time(),
            headers=headers, is_grpc=is_grpc(headers),
        )  # fmt: skip
        request = self._read(head, headers)
        if isinstance(request, BadTarget):
            return self._answer(responder, record, Reply(request.status, request.reason), BAD_REQUEST)
        record.authority, record.target = request.authority, request.target
        denial = self._arrival.judge(request)
        if denial is not None:
            return self._answer(responder, record, denied(request), DENIED, denial.reason)
        decision = self._route(request)
        record.route = decision.route
        if isinstance(decision, Reply):
            return self._answer(responder, record, decision, NO_ROUTE if decision.status == 404 else "-")
        return self._forward(head, responder, decision, record, request)

    def _read(self, head: RequestHead, headers: Headers) -> Request | BadTarget:
        read = _remembered if len(head.target) <= LONGEST_REMEMBERED else read_target
        target: Target | BadTarget = read(head.method, head.target, head.authority, head.host)
        if isinstance(target, BadTarget):
            return target
        return Request(head.method, "http", target.authority, target.path, target.query, headers)

    def _route(self, request: Request) -> Forward | Reply:
        arrival = self._arrival
        if isinstance(arrival.target, WorkloadTarget):
            target = arrival.target
            return Forward(Destination(target.service or ServiceKey(""), target.port, target.protocol), request)
        table = arrival.table()
        if table is None:
            return local_reply(request, 503, "the service does not pass this waypoint any more")
        return table.choose(request, arrival.client, _random())

    def _forward(
        self, head: RequestHead, responder: Responder, forward: Forward, record: Record, judged: Request
    ) -> Exchange:
        request = forward.request
        sent = RequestHead(
            request.method, request.target, request.authority, request.headers, head.length, version=head.version
        )
        sent.upgrade = head.upgrade
        exchange = HttpExchange(
            self._loop, self._upstreams, responder, sent, forward, self._choose, record, self._done, _random
        )
        self._live.add(record, exchange, self._arrival, judged)
        if forward.mirrors:
            return Mirror.around(exchange, self._upstreams, self._arrival.world, forward.mirrors, sent, record.client)
        return exchange.start()

    def _own_headers(self, headers: Headers) -> Headers:
        """An id for the request, and nobody's word about the client's certificate but ours: policies, routes, mirrors
        and the app all get these."""
        names = {name for name, _ in headers}
        if CLIENT_CERTIFICATE in names:
            headers = tuple([pair for pair in headers if pair[0] != CLIENT_CERTIFICATE])
        if REQUEST_ID not in names:
            headers = (*headers, (REQUEST_ID, _request_id()))
        world, client = self._arrival.world, self._arrival.client
        if world.gateway.client_certificate_header and client.identity is not None:
            own = world.identity
            headers = (*headers, (CLIENT_CERTIFICATE, f"By={own};URI={client.identity}"))
        return headers

    def _choose(self, forward: Forward, avoid: frozenset[WorkloadUid]) -> tuple[Hop, Version] | Unavailable:
        """The endpoint of an attempt, and what it is spoken to in."""
        arrival = self._arrival
        if isinstance(arrival.target, WorkloadTarget):
            hop = hop_to_workload(arrival.target, avoid)
        else:
            hop = hop_to_service(arrival.world, forward.to.service, forward.to.port, _random, avoid)
        if isinstance(hop, Unavailable):
            return hop
        return hop, version_for(forward.to.protocol, self._client_speaks_http2)

    _client_speaks_http2 = False

    def speaks_http2(self) -> Requests:
        """The client does."""
        self._client_speaks_http2 = True
        return self

    def _answer(self, responder: Responder, record: Record, reply: Reply, flags: str, reason: str = "") -> Exchange:
        record.status, record.flags = (200 if reply.grpc is not None else reply.status), flags
        record.reason = reason or (reply.reason if reply.status >= 400 or reply.grpc is not None else "")
        record.grpc_status = "" if reply.grpc is None else str(reply.grpc)
        record.sent = send_reply(responder, reply)
        self._done(record)
        return NOTHING

    def _done(self, record: Record) -> None:
        self._live.remove(record)
        self._finished(record, self._arrival)


def _request_id() -> str:
    """A random UUID, version 4 (RFC 9562 section 5.4)."""
    digits = f"{random.getrandbits(128) & ~(0xF << 76 | 0x3 << 62) | 4 << 76 | 2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
