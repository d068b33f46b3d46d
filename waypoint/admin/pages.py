"""A few pages over HTTP/1, each a function from a query to a response."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from waypoint.http.http1_server import Http1Server
from waypoint.http.message import Exchange, RequestHead, Responder, ResponseHead
from waypoint.routing.request import Headers
from waypoint.tcp import TcpChannel


@dataclass(frozen=True, slots=True)
class Page:
    """`methods` it takes; `show` gets the query and the request's fields."""

    show: Callable[[Mapping[str, str], Mapping[str, str]], Shown]
    methods: frozenset[str] = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Shown:
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


class Pages:
    """One server. Bodies of requests are thrown away."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pages: Mapping[str, Page]) -> None:
        self._loop = loop
        self._pages = pages

    def protocol(self) -> asyncio.BaseProtocol:
        channel = TcpChannel()
        Http1Server(self._loop, channel, self._serve, lambda error: None, lambda: None)
        return channel

    def _serve(self, head: RequestHead, responder: Responder) -> Exchange:
        path, _, query = head.target.partition("?")
        shown = self._show(head, path, dict(parse_qsl(query, keep_blank_values=True)))
        kind = (("content-type", shown.kind),)
        responder.respond(ResponseHead(shown.status, kind, len(shown.body)), ended=head.method == "HEAD")
        if head.method != "HEAD":
            responder.write(shown.body)
            responder.finish()
        return _Discard(responder)

    def _show(self, head: RequestHead, path: str, query: Mapping[str, str]) -> Shown:
        page = self._pages.get(path)
        if page is None:
            return Shown(b"no such page\n", status=404)
        if head.method not in page.methods:
            return Shown(b"not with this method\n", status=405)
        try:
            return page.show(query, dict(head.headers))
        except ValueError as error:
            return Shown(f"{error}\n".encode(), status=400)


class _Discard:
    def __init__(self, responder: Responder) -> None:
        self._responder = responder

    def request_body(self, pieces: list[memoryview]) -> None:
        self._responder.acknowledge(sum(map(len, pieces)))

    def request_ended(self, trailers: Headers) -> None: ...

    def client_lost(self, reason: str) -> None: ...

    def client_drained(self) -> None: ...
