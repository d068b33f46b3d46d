"""Connections that are not HTTP: TLS that is passed through, and plain TCP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from mesh.model.balance import Unavailable
from mesh.model.workload import ServiceKey, WorkloadUid
from waypoint.channel import Channel
from waypoint.exchange.upstreams import Dialler, Ticket
from waypoint.plan.hop import Hop, hop_to_service, hop_to_workload
from waypoint.plan.target import WorkloadTarget
from waypoint.routing.request import Client
from waypoint.routing.streams import Refuse
from waypoint.serve.connection import Arrival
from waypoint.splice import Splice

MOST_DIALS = 3  # endpoints that are tried before a connection is refused


@dataclass(slots=True)
class StreamRecord:
    """What became of a connection, for metrics and the access log."""

    client: Client
    destination: str
    service: ServiceKey | None
    protocol: str
    started: float
    hop: Hop | None = None
    sent: int = 0  # by the client, in bytes
    received: int = 0
    route: str = ""
    flags: str = "-"
    reason: str = ""


class StreamConnection:
    """Decides, dials, and then carries bytes. `opened` gets the channel once it stands; without it, nothing is read."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        arrival: Arrival,
        dialler: Dialler,
        sni: str,
        record: StreamRecord,
        opened: Callable[[Channel], None],
        failed: Callable[[str], None],
        chance: Callable[[], float],
    ) -> None:
        self._arrival = arrival
        self._dialler = dialler
        self._sni = sni
        self.record = record
        self._opened = opened
        self._failed = failed
        self._chance = chance
        self._avoid: frozenset[WorkloadUid] = frozenset()
        self._ticket: Ticket | None = None
        self._over = False

    def start(self) -> None:
        denial = self._arrival.judge_connection(self._sni)
        if denial is not None:
            self._fail(denial.reason, "RBAC")
            return
        self._dial()

    def cancel(self) -> None:
        self._over = True
        if self._ticket is not None:
            self._ticket.cancel()

    def _dial(self) -> None:
        hop = self._choose()
        if isinstance(hop, Refuse):
            self.record.route = hop.route
            self._fail(hop.reason, "NR")
        elif isinstance(hop, Unavailable):
            self._fail(hop.reason, "UH")
        else:
            self.record.hop = hop
            self._ticket = self._dialler.dial(hop, self._arrival.client, self._connected, self._not_connected)

    def _choose(self) -> Hop | Refuse | Unavailable:
        arrival = self._arrival
        if isinstance(arrival.target, WorkloadTarget):
            return hop_to_workload(arrival.target, self._avoid)
        table = arrival.table()
        if table is None:
            return Refuse("the service does not pass this waypoint any more")
        to = table.connect(arrival.client, self._sni, self._chance())
        if isinstance(to, Refuse):
            return to
        self.record.route = to.route
        return hop_to_service(arrival.world, to.to.service, to.to.port, self._chance, self._avoid)

    def _connected(self, channel: Channel) -> None:
        self._ticket = None
        if self._over:
            channel.reset()
        else:
            self._opened(channel)

    def _not_connected(self, reason: str) -> None:
        """Nothing has been sent: another endpoint may be tried."""
        self._ticket = None
        hop = self.record.hop
        if self._over:
            return
        if hop is not None and len(self._avoid) + 1 < MOST_DIALS:
            self._avoid |= {hop.workload.uid}
            before = self.record.hop
            chosen = self._choose()
            if isinstance(chosen, Hop):
                self.record.hop = chosen
                self._ticket = self._dialler.dial(chosen, self._arrival.client, self._connected, self._not_connected)
                return
            self.record.hop = before
        self._fail(reason, "UF")

    def _fail(self, reason: str, flags: str) -> None:
        self._over = True
        self.record.reason, self.record.flags = reason, flags
        self._failed(reason)


def carry(client: Channel, server: Channel, record: StreamRecord, finished: Callable[[StreamRecord], None]) -> Splice:
    def done(splice: Splice, reason: str) -> None:
        record.sent, record.received = splice.sent, splice.received
        if reason:
            record.reason = reason
        finished(record)

    return Splice(client, server, done)
