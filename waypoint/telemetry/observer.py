"""Tells metrics and the access log what became of everything (serve.arrivals.Observer)."""

from __future__ import annotations

from waypoint.exchange.exchange import Record
from waypoint.plan.target import Refusal
from waypoint.serve.connection import Arrival
from waypoint.serve.stream import StreamRecord
from waypoint.telemetry.access_log import AccessLog
from waypoint.telemetry.metrics import Traffic
from waypoint.tunnel.server import Connect


class Telemetry:
    def __init__(self, traffic: Traffic, log: AccessLog | None) -> None:
        self._traffic = traffic
        self._log = log

    def request(self, record: Record, arrival: Arrival) -> None:
        self._traffic.request(record, arrival)
        if self._log is not None:
            self._log.request(record, arrival)

    def opened(self, record: StreamRecord, arrival: Arrival) -> None:
        self._traffic.opened(record, arrival)

    def closed(self, record: StreamRecord, arrival: Arrival) -> None:
        self._traffic.closed(record, arrival)
        if self._log is not None:
            self._log.stream(record)

    def refused(self, connect: Connect, refusal: Refusal) -> None:
        if self._log is not None:
            self._log.refused(connect, refusal)
