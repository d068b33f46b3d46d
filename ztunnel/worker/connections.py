"""The book of app connections: what the agent turns into access log, metrics and `/connections`."""

from __future__ import annotations

import time
from typing import Protocol

from mesh.model.address import SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.workload import WorkloadUid
from mesh.policy.evaluate import Permit
from ztunnel import feed
from ztunnel.plan.plan import Flag
from ztunnel.worker.loop import Loop

REPORT_INTERVAL = 0.1  # seconds that a record waits for company
REPORT_SIZE = 64  # records that do not wait any longer: the agent takes a message in one piece, about 1 ms for these

HBONE = "HBONE"
TCP = "TCP"
OUTBOUND = "outbound"
INBOUND = "inbound"
_ANNOUNCED = object()


class Carrier(Protocol):
    """What moves the bytes of a connection."""

    def counts(self) -> tuple[int, int]:
        """Payload bytes from client to server, and back."""

    def cut(self, reason: str) -> None:
        """Ends the connection now, with resets."""

    def held(self) -> int:
        """Payload bytes that wait for somebody who does not read."""


class Record:
    """One app connection, from its acceptance on. Attributes are those of `feed.Connection`."""

    __slots__ = (
        "actual",
        "book",
        "carrier",
        "destination",
        "destination_identity",
        "destination_service",
        "direction",
        "final_counts",
        "flag",
        "opened",
        "peer_workload",
        "permit",
        "protocol",
        "source",
        "source_identity",
        "started",
        "workload",
    )

    def __init__(
        self, direction: str, protocol: str, workload: WorkloadUid, source: SocketAddress, destination: SocketAddress
    ) -> None:
        self.direction = direction
        self.protocol = protocol
        self.workload = workload
        self.source = source
        self.destination = destination
        self.actual: SocketAddress | None = None
        self.source_identity: SpiffeId | None = None
        self.destination_identity: SpiffeId | None = None
        self.destination_service = ""
        self.peer_workload: WorkloadUid | None = None
        self.started = time.time()
        self.book: Book | None = None  # since it was opened
        self.carrier: Carrier | None = None
        self.final_counts: tuple[int, int] | None = None
        self.permit: Permit | None = None  # of an inbound connection: what allowed it, to be judged again
        self.flag = Flag.NONE
        self.opened = False

    def held(self) -> int:
        return self.carrier.held() if self.carrier is not None else 0

    def finished(self, error: str) -> None:
        """For its carrier: "" or why it broke. Unlike a closure, it keeps nothing alive of what led to the carrier."""
        if self.book is not None:
            self.book.close(self, error=error)

    def value(self, ended: float | None = None, error: str = "", announced: bool = True) -> feed.Connection:
        sent, received = self.final_counts or (self.carrier.counts() if self.carrier else (0, 0))
        return feed.Connection(
            direction=self.direction,
            protocol=self.protocol,
            workload=self.workload,
            source=self.source,
            destination=self.destination,
            actual=self.actual,
            source_identity=self.source_identity,
            destination_identity=self.destination_identity,
            destination_service=self.destination_service,
            peer_workload=self.peer_workload,
            sent=sent,
            received=received,
            started=self.started,
            ended=ended,
            flags=str(self.flag),
            error=error,
            opened=self.opened,
            announced=announced,
        )


class Book:
    """Live records, and those that the agent has not heard of yet."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._send = _nobody
        self._live: dict[Record, None] = {}
        self._unannounced: dict[Record, None] = {}  # live, and the agent has not heard of them
        self._closed: list[feed.Connection] = []
        self._reporting = False

    def report_to(self, reporter: Reporter) -> None:
        self._send = reporter

    def __len__(self) -> int:
        return len(self._live)

    def open(self, record: Record) -> None:
        """Its way is decided; it will be dialled."""
        record.opened = True
        record.book = self
        self._live[record] = self._unannounced[record] = None
        self._report_later()

    def close(self, record: Record, flag: Flag = Flag.NONE, error: str = "") -> None:
        """It has ended, or was refused before it was opened. The carrier is let go."""
        if record.carrier is not None:
            record.final_counts = record.carrier.counts()
            record.carrier = None
        if flag is not Flag.NONE:
            record.flag = flag
        self._live.pop(record, None)
        announced = self._unannounced.pop(record, _ANNOUNCED) is _ANNOUNCED
        self._closed.append(record.value(time.time(), error, announced))
        self._report_later()

    @property
    def waiting(self) -> int:
        """Records that have not been reported yet."""
        return len(self._unannounced) + len(self._closed)

    def live(self) -> list[Record]:
        return list(self._live)

    def report(self) -> None:
        self._reporting = False
        opened, self._unannounced = self._unannounced, {}
        closed, self._closed = self._closed, []
        if opened:
            self._send(feed.Opened(tuple([record.value() for record in opened])))
        if closed:
            self._send(feed.Closed(tuple(closed)))

    def _report_later(self) -> None:
        if len(self._unannounced) + len(self._closed) >= REPORT_SIZE:
            self.report()
        elif not self._reporting:
            self._reporting = True
            self._loop.later(REPORT_INTERVAL, self.report)


class Reporter(Protocol):
    def __call__(self, message: feed.Opened | feed.Closed, /) -> None: ...


def _nobody(message: feed.Opened | feed.Closed, /) -> None:
    """Before there is an agent, and after."""
