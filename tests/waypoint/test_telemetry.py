"""What is counted of requests."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.routing import AppProtocol
from tests.waypoint.rig import Rig, app
from tests.waypoint.test_http1 import ask, mirror, wait_for
from tests.waypoint.test_http2 import Echo
from waypoint.exchange.exchange import Record
from waypoint.exchange.grpc_messages import Messages
from waypoint.serve.connection import Arrival
from waypoint.telemetry.metrics import Traffic


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as running:
        yield running


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_messages_are_counted_however_they_are_cut(messages: list[bytes], step: int) -> None:
    body = b"".join(b"\0" + len(each).to_bytes(4, "big") + each for each in messages)
    counted = Messages()
    for at in range(0, len(body), step):
        counted.add([memoryview(body[at : at + step])])
    assert counted.count == len(messages)


def test_messages_of_calls_are_metrics_and_requests_have_none(rig: Rig) -> None:
    traffic, seen = Traffic(time.monotonic), []

    def request(record: Record, arrival: Arrival) -> None:
        traffic.request(record, arrival)
        seen.append(record)

    rig.core.arrivals._observer.request = request  # type: ignore[method-assign]
    with Echo() as port:
        rig.simple(AppProtocol.GRPC, target=port)
        with grpc.insecure_channel(f"127.0.0.1:{rig.listen()}") as channel:
            channel.stream_unary("/test.Echo/Up")(iter([b"a", b"b" * 300_000, b""]), timeout=10)
            list(channel.unary_stream("/test.Echo/Down")(b"70", timeout=10))
    with app("127.9.1.1", mirror) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        with rig.dial() as sock:
            ask(sock, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0")
    wait_for(lambda: len(seen) == 3)
    samples = [sample for metric in traffic.collect() for sample in metric.samples]
    for way, messages in (("request", 4), ("response", 71)):
        (found,) = [each for each in samples if each.name == f"istio_{way}_messages_total"]
        assert found.value == messages
        assert (found.labels["request_protocol"], found.labels["destination_service_name"]) == ("grpc", "web")
