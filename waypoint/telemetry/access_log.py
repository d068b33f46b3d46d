"""One line per request and per connection that is not HTTP, with Istio's words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from mesh.runtime.lines import LineWriter
from mesh.runtime.style import Style
from waypoint.exchange.exchange import Record
from waypoint.plan.hop import Hop
from waypoint.plan.target import Refusal
from waypoint.routing.request import Client, Headers
from waypoint.serve.connection import Arrival
from waypoint.serve.stream import StreamRecord
from waypoint.tunnel.server import Connect

TARGET = "access"
LONGEST = 512  # characters of what a client chose
REMEMBERED = 4096  # pairs of ends: those that talk to each other are few


class AccessLog:
    """The writer behind it is bounded and never waits."""

    def __init__(self, writer: LineWriter, style: Style, now: Callable[[], float]) -> None:
        self._writer = writer
        self._style = style
        self._now = now
        self._ends: dict[tuple[object, ...], str] = {}

    def request(self, record: Record, arrival: Arrival) -> None:
        now = self._now()
        fields: dict[str, object] = {
            "method": record.method,
            "authority": record.authority[:LONGEST],
            "path": record.target[:LONGEST],
            "protocol": record.version,
            "status": record.status,
            "grpc_status": record.grpc_status,
            "response_flags": "" if record.flags == "-" else record.flags,
            "bytes_recv": record.received,
            "bytes_sent": record.sent,
            "duration": f"{(now - record.started) * 1000:.1f}ms",
            "attempts": record.attempts if record.attempts > 1 else "",
            "route": record.route,
            "request_id": _header(record.headers, "x-request-id"),
            "traceparent": _header(record.headers, "traceparent"),
            "reason": record.reason[:LONGEST],
        }
        level = "error" if record.status >= 500 else "info"
        self._write(level, "request", fields, self._known(record.client, record.hop, str(arrival.target)))

    def stream(self, record: StreamRecord) -> None:
        now = self._now()
        fields: dict[str, object] = {
            **_ends(record.client, record.hop),
            "dst.service": record.destination,
            "protocol": record.protocol,
            "bytes_recv": record.sent,
            "bytes_sent": record.received,
            "duration": f"{(now - record.started) * 1000:.1f}ms",
            "route": record.route,
            "response_flags": "" if record.flags == "-" else record.flags,
            "reason": record.reason[:LONGEST],
        }
        level = "error" if record.flags != "-" else "info"
        self._write(level, "connection", fields)

    def refused(self, connect: Connect, refusal: Refusal) -> None:
        fields: dict[str, object] = {
            "src.addr": connect.remote,
            "src.identity": connect.peer,
            "authority": f"{connect.request.host}:{connect.request.port}"[:LONGEST],
            "status": refusal.status,
            "reason": refusal.reason,
        }
        self._write("warn", "connection refused", fields)

    def _known(self, client: Client, hop: Hop | None, service: str) -> str:
        """What is the same for all requests of a client to an endpoint."""
        key = client.identity, client.address, hop and hop.address, service
        found = self._ends.get(key)
        if found is None:
            if len(self._ends) >= REMEMBERED:
                self._ends.clear()
            found = self._ends[key] = self._style.pairs({**_ends(client, hop), "dst.service": service})
        return found

    def _write(self, level: str, what: str, fields: Mapping[str, object], known: str = "") -> None:
        self._writer.write(self._style.line(time.time(), level, TARGET, what, [known, self._style.pairs(fields)]))


def _ends(client: Client, hop: Hop | None) -> dict[str, object]:
    return {
        "src.addr": client.address,
        "src.identity": client.identity,
        "dst.addr": hop.address if hop else "",
        "dst.workload": hop.workload.name if hop else "",
        "dst.namespace": hop.workload.namespace if hop else "",
    }


def _header(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key == name), "")[:LONGEST]
