"""Prometheus metrics under Istio's names. A request costs one look-up and a few additions."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from mesh.model.labels import PEERS, UNKNOWN
from waypoint.exchange.exchange import Record
from waypoint.serve.connection import Arrival
from waypoint.serve.stream import StreamRecord
from waypoint.telemetry.labels import CONNECTION, REQUEST, peers

# Istio's (Envoy's) bounds, in milliseconds and bytes.
DURATIONS = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000)
SIZES = (1, 8, 64, 512, 4096, 32_768, 262_144, 2_097_152, 16_777_216, 134_217_728, 1_073_741_824)
MOST_SERIES = 8192  # beyond it requests are counted without saying whose: the labels come from outside


class Histogram:
    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        names = (*(str(float(bound)) for bound in self._bounds), "+Inf")
        return list(zip(names, accumulate(self.counts), strict=True))


class RequestSeries:
    """Requests with the same labels."""

    __slots__ = ("count", "duration", "is_grpc", "labels", "messages_received", "messages_sent", "received", "sent")

    def __init__(self, labels: tuple[str, ...], is_grpc: bool) -> None:
        self.labels = labels
        self.is_grpc = is_grpc
        self.count = self.messages_received = self.messages_sent = 0
        self.duration, self.received, self.sent = Histogram(DURATIONS), Histogram(SIZES), Histogram(SIZES)


class ConnectionSeries:
    __slots__ = ("closed", "labels", "opened", "received", "sent")

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.opened = self.closed = self.received = self.sent = 0


class Traffic(Collector):
    """Counts what it is told of."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._requests: dict[tuple[object, ...], RequestSeries] = {}
        self._connections: dict[tuple[object, ...], ConnectionSeries] = {}

    def request(self, record: Record, arrival: Arrival) -> None:
        client, hop = record.client, record.hop
        workload = hop.workload if hop else None
        key = (
            client.identity, client.address.ip, workload, hop and hop.service, arrival.service, record.is_grpc,
            record.status, record.grpc_status, record.flags,
        )  # fmt: skip
        series = self._requests.get(key)
        if series is None or (workload is not None and hop is not None and key[2] is not workload):
            series = self._new_request(key, record, arrival)
        series.count += 1
        if series.is_grpc:
            series.messages_received += record.messages_received
            series.messages_sent += record.messages_sent
        series.duration.add((self._now() - record.started) * 1000)
        series.received.add(record.received)
        series.sent.add(record.sent)

    def opened(self, record: StreamRecord, arrival: Arrival) -> None:
        self._connection(record, arrival).opened += 1

    def closed(self, record: StreamRecord, arrival: Arrival) -> None:
        series = self._connection(record, arrival)
        series.closed += 1
        series.received += record.sent  # as the server sees it
        series.sent += record.received

    def _new_request(self, key: tuple[object, ...], record: Record, arrival: Arrival) -> RequestSeries:
        if len(self._requests) >= MOST_SERIES:
            key, known = (), _nobody()
        else:
            service = record.hop.service if record.hop and record.hop.service else arrival.service
            known = peers(arrival.world, record.client, record.hop, service)
        labels = (
            *known,
            "grpc" if record.is_grpc else "http",
            "mutual_tls",
            record.flags,
            str(record.status),
            record.grpc_status,
        )
        found = self._requests.get(key)
        if found is None:
            found = self._requests[key] = RequestSeries(labels, record.is_grpc)
        return found

    def _connection(self, record: StreamRecord, arrival: Arrival) -> ConnectionSeries:
        workload = record.hop.workload if record.hop else None
        key = (record.client.identity, record.client.address.ip, workload, record.service)
        found = self._connections.get(key)
        if found is None:
            full = len(self._connections) >= MOST_SERIES
            known = _nobody() if full else peers(arrival.world, record.client, record.hop, record.service)
            key = () if full else key  # type: ignore[assignment]
            found = self._connections.setdefault(key, ConnectionSeries((*known, "tcp", "mutual_tls", "-")))
        return found

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("istio_requests", "Requests", labels=REQUEST)
        for one in self._requests.values():
            requests.add_metric(one.labels, one.count)
        yield requests
        yield self._histogram("istio_request_duration_milliseconds", "Duration of requests", lambda one: one.duration)
        yield self._histogram("istio_request_bytes", "Bodies of requests", lambda one: one.received)
        yield self._histogram("istio_response_bytes", "Bodies of responses", lambda one: one.sent)
        for way, name in (("request", "messages_received"), ("response", "messages_sent")):
            family = CounterMetricFamily(f"istio_{way}_messages", f"gRPC: messages of {way}s", labels=REQUEST)
            for one in self._requests.values():
                if one.is_grpc:
                    family.add_metric(one.labels, getattr(one, name))
            yield family
        for name in ("opened", "closed", "received", "sent"):
            suffix = f"connections_{name}" if name in ("opened", "closed") else f"{name}_bytes"
            family = CounterMetricFamily(f"istio_tcp_{suffix}", f"TCP: {suffix}", labels=CONNECTION)
            for other in self._connections.values():
                family.add_metric(other.labels, getattr(other, name))
            yield family

    def _histogram(self, name: str, text: str, read: Callable[[RequestSeries], Histogram]) -> Metric:
        family = HistogramMetricFamily(name, text, labels=REQUEST)
        for one in self._requests.values():
            histogram = read(one)
            family.add_metric(one.labels, histogram.buckets(), histogram.total)
        return family


class Metrics:
    """One registry per process. `gauges` is read when somebody looks."""

    def __init__(
        self, version: str, now: Callable[[], float], gauges: Callable[[], Iterable[tuple[str, float]]]
    ) -> None:
        self.registry = CollectorRegistry()
        self.traffic = Traffic(now)
        self._version = version
        self._gauges = gauges
        self.registry.register(self.traffic)
        self.registry.register(_Own(self._own))
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _own(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("istio_build", "Build information", labels=["component", "tag"])
        build.add_metric(["waypoint", self._version], 1)
        yield build
        for name, value in self._gauges():
            yield GaugeMetricFamily(f"ambit_waypoint_{name}", name.replace("_", " "), value=value)


class _Own(Collector):
    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        return self._read()


def _nobody() -> tuple[str, ...]:
    return ("waypoint", *(UNKNOWN for _ in PEERS[1:]))
