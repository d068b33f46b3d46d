"""Prometheus metrics under Istio's names, and a few of our own for what Istio does not measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ztunnel.agent.telemetry import LABELS, Names, with_flags, without_names
from ztunnel.feed import Connection

# Sets of labels, each a few kB in all that is counted and shown. On a node pairs of workloads that talk are hundreds;
# but they come and go for as long as the agent lives.
MAX_SERIES = 5000

Values = tuple[str, ...]
Labelled = TypeVar("Labelled", bound=Values)
Gauges = Callable[[], Iterable[Metric]]


class ConnectionMetrics(Collector):
    """Istio's counters of TCP connections. Bytes of connections that still live are counted when they are told of by
    `live`; what has been shown never goes down, as Prometheus demands of a counter. Connections of new ends beyond
    MAX_SERIES are counted together, without names."""

    def __init__(self) -> None:
        self._series: set[Values] = set()
        self.unnamed = 0  # connections that were counted together
        self._opened: dict[Values, int] = {}
        self._closed: dict[Values, int] = {}
        self._failed: dict[Values, int] = {}
        self._ended_bytes: dict[Values, tuple[int, int]] = {}
        self._shown_bytes: dict[Values, tuple[int, int]] = {}

    def opened(self, names: Names) -> None:
        _count(self._opened, self._values(names))

    def closed(self, connection: Connection, names: Names) -> None:
        values = self._values(names)
        self.unnamed += values is not names.labels
        if connection.flags != "-":
            _count(self._failed, with_flags(values, connection.flags))
        if connection.opened:
            if not connection.announced:
                _count(self._opened, values)
            _count(self._closed, values)
            _add(self._ended_bytes, values, connection)

    def live(self, connections: Iterable[tuple[Connection, Names]]) -> None:
        """All connections that live now."""
        now = dict(self._ended_bytes)
        for connection, names in connections:
            _add(now, self._values(names), connection)
        for values, (sent, received) in now.items():
            shown = self._shown_bytes.get(values, (0, 0))
            self._shown_bytes[values] = max(shown[0], sent), max(shown[1], received)

    def collect(self) -> Iterator[Metric]:
        yield _family("istio_tcp_connections_opened", "Connections opened", self._opened)
        yield _family("istio_tcp_connections_closed", "Connections closed", self._closed)
        yield _family("istio_tcp_connections_failed", "Connections refused or broken (unstable)", self._failed)
        requests = {values: sent for values, (sent, _) in self._shown_bytes.items()}
        responses = {values: received for values, (_, received) in self._shown_bytes.items()}
        yield _family("istio_tcp_received_bytes", "Bytes that clients sent to servers", requests)
        yield _family("istio_tcp_sent_bytes", "Bytes that servers sent to clients", responses)

    @property
    def series(self) -> int:
        return len(self._series)

    def _values(self, names: Names) -> Values:
        """Its labels, or those of all for whose names there is no room."""
        if names.labels in self._series:
            return names.labels
        if len(self._series) >= MAX_SERIES:
            return without_names(names.labels)
        self._series.add(names.labels)
        return names.labels


class GaugeCollector(Collector):
    """What is read from its owners when somebody looks."""

    def __init__(self, read: Gauges) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return self._read()


class Metrics:
    """One registry per agent."""

    def __init__(self, version: str, gauges: Gauges) -> None:
        self.registry = CollectorRegistry()
        self.connections = ConnectionMetrics()
        self.xds_terminations = Counter(
            "istio_xds_connection_terminations", "Ends of the xDS stream (unstable)", ["reason"], registry=self.registry
        )
        self.xds_messages = Counter("istio_xds_message", "xDS responses (unstable)", ["url"], registry=self.registry)
        self.xds_bytes = Counter(
            "istio_xds_message_bytes", "Bytes of xDS responses (unstable)", ["url"], registry=self.registry
        )
        self._version = version
        self.registry.register(self.connections)
        self.registry.register(GaugeCollector(gauges))
        self.registry.register(GaugeCollector(self._build))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def show(self, gauges: Gauges) -> None:
        """More of them."""
        self.registry.register(GaugeCollector(gauges))

    def _build(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("istio_build", "Build information", labels=["component", "tag"])
        family.add_metric(["ztunnel", self._version], 1)
        yield family


def gauge(name: str, text: str, values: Mapping[Labelled, float], names: tuple[str, ...] = ()) -> Metric:
    family = GaugeMetricFamily(name, text, labels=names)
    for labelled, value in values.items():
        family.add_metric(labelled, value)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _family(name: str, text: str, values: dict[Values, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=LABELS)
    for labelled, value in values.items():
        family.add_metric(labelled, value)
    return family


def _count(counts: dict[Values, int], values: Values) -> None:
    counts[values] = counts.get(values, 0) + 1


def _add(totals: dict[Values, tuple[int, int]], values: Values, connection: Connection) -> None:
    sent, received = totals.get(values, (0, 0))
    totals[values] = sent + connection.sent, received + connection.received
