"""Against the h2 library, in both roles: another implementation's reading of the RFC."""

from __future__ import annotations

import random
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.settings import SettingCodes

from mesh.hbone import Connection, ErrorCode, GoingAway, Limits, Role
from tests.hbone.ends import Recorder, drain, feed, send

CONNECT = [(":method", "CONNECT"), (":authority", "10.0.0.1:80")]


class Both:
    """Our end and h2's, joined."""

    def __init__(self, role: Role, limits: Limits | None = None) -> None:
        self.seen = Recorder()
        self.ours = Connection(role, self.seen, limits)
        config = H2Configuration(client_side=role is Role.SERVER, header_encoding="utf-8")
        self.theirs = H2Connection(config)
        self.theirs.initiate_connection()
        self.events: list[Event] = []
        self.exchange()
        self.forget()

    def exchange(self) -> None:
        data = self.theirs.data_to_send()
        while data or self.ours.staged:
            feed(self.ours, data)
            if self.ours.staged:
                self.events += self.theirs.receive_data(drain(self.ours))
            data = self.theirs.data_to_send()

    def forget(self) -> None:
        self.events.clear()
        self.seen.take()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


def as_server(**limits: Any) -> tuple[Both, int]:
    both = Both(Role.SERVER, Limits(**limits))
    both.theirs.send_headers(1, CONNECT)
    both.exchange()
    both.ours.respond(1, 200)
    both.exchange()
    return both, 1


def as_client(**limits: Any) -> tuple[Both, int]:
    both = Both(Role.CLIENT, Limits(**limits))
    stream = both.ours.open("10.0.0.1:80")
    both.exchange()
    both.theirs.send_headers(stream, [(":status", "200")])
    both.exchange()
    return both, stream


ROLES = pytest.mark.parametrize("tunnel", [as_server, as_client], ids=["server", "client"])


def test_h2_opens_a_tunnel() -> None:
    both = Both(Role.SERVER)
    extra = [("baggage", "k8s.namespace.name=shop"), ("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-00")]
    for stream in (1, 3):  # the second block refers to the dynamic table
        both.theirs.send_headers(stream, CONNECT + extra)
        both.exchange()
        assert both.seen.take() == [("request", stream, dict(CONNECT + extra), False)]
        both.ours.respond(stream, 200, [("baggage", "there")])
        both.exchange()
        [answer] = both.of(ResponseReceived)
        assert dict(answer.headers) == {":status": "200", "baggage": "there"}
        both.forget()


def test_h2_is_asked_for_a_tunnel() -> None:
    both = Both(Role.CLIENT)
    stream = both.ours.open("[fd00::1]:80", [("baggage", "x" * 300)])
    both.exchange()
    [request] = both.of(RequestReceived)
    assert dict(request.headers) == {":method": "CONNECT", ":authority": "[fd00::1]:80", "baggage": "x" * 300}
    both.theirs.send_headers(stream, [(":status", "503"), ("x-reason", "no such pod")], end_stream=True)
    both.exchange()
    assert both.seen.take() == [("response", stream, 503, {":status": "503", "x-reason": "no such pod"}, True)]
    both.ours.reset(stream, ErrorCode.CANCEL)
    both.exchange()
    assert both.of(StreamReset)


@ROLES
@pytest.mark.parametrize("padding", [None, 0, 200])
def test_h2_sends_bulk(tunnel: Any, padding: int | None) -> None:
    both, stream = tunnel(initial_window=65535)
    source = random.Random(1)
    data, sent, updates = source.randbytes(3_000_000), 0, 0
    while sent < len(data):
        room = both.theirs.local_flow_control_window(stream)
        size = min(room - 300, source.choice([1, 100, 16000]), len(data) - sent)
        assert size > 0, "credit comes back before it is used up"
        both.theirs.send_data(stream, data[sent : sent + size], pad_length=padding)
        sent += size
        if source.random() < 0.3:
            both.exchange()
            both.ours.acknowledge(stream, sum(len(event[2]) for event in both.seen.taken("data")))
            both.exchange()
            updates = len(both.of(WindowUpdated))
    both.theirs.end_stream(stream)
    both.exchange()
    assert bytes(both.seen.bytes[stream]) == data
    assert both.seen.take()[-1] == ("ended", stream)
    assert updates < 400, "credit comes back in large steps"


@ROLES
def test_h2_receives_bulk(tunnel: Any) -> None:
    both, stream = tunnel()
    source = random.Random(2)
    data, sent, taken = source.randbytes(2_000_000), 0, bytearray()
    while sent < len(data):
        sent += send(both.ours, stream, data[sent : sent + source.choice([1, 128, 200_000])])
        both.exchange()
        for event in both.of(DataReceived):
            taken += event.data
            both.theirs.acknowledge_received_data(event.flow_controlled_length, stream)
        both.forget()
        both.exchange()
    both.ours.end(stream)
    both.exchange()
    assert bytes(taken) == data
    assert both.of(StreamEnded)


@ROLES
def test_h2_changes_its_windows(tunnel: Any) -> None:
    both, stream = tunnel()
    assert send(both.ours, stream, bytes(60_000)) == 60_000
    both.theirs.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100, SettingCodes.MAX_FRAME_SIZE: 100_000})
    both.exchange()
    assert both.seen.take()[-1] == ("limits",)
    assert both.ours.reserve(stream) is None, "its credit is negative now"
    assert both.ours.starved(stream)
    both.theirs.increment_flow_control_window(50_000, stream)
    both.exchange()
    assert both.seen.take() == [], "still negative"
    both.theirs.increment_flow_control_window(50_000, stream)
    both.exchange()
    assert both.seen.take() == [("writable", stream)]
    # The connection's 65535 bytes have 5535 left, the stream 40100.
    assert send(both.ours, stream, bytes(100_000)) == 5535
    assert both.ours.reserve(stream) is None
    assert not both.ours.starved(stream)
    both.theirs.increment_flow_control_window(1_000_000)
    both.exchange()
    assert both.seen.take() == [("writable",)]
    both.forget()
    assert send(both.ours, stream, bytes(100_000)) == 34_565
    both.exchange()
    assert [len(event.data) for event in both.of(DataReceived)] == [34_565], "one frame, since its frames may be large"


@ROLES
def test_h2_resets(tunnel: Any) -> None:
    both, stream = tunnel()
    both.theirs.reset_stream(stream, 8)
    both.exchange()
    assert both.seen.take()[-1] == ("reset", stream, ErrorCode.CANCEL)
    assert both.ours.open_streams == 0


@ROLES
def test_h2_is_reset(tunnel: Any) -> None:
    both, stream = tunnel()
    both.forget()
    both.theirs.send_data(stream, b"crossing on the wire")
    both.ours.reset(stream, ErrorCode.CANCEL)
    both.exchange()
    assert both.of(StreamReset)[0].error_code == ErrorCode.CANCEL
    assert both.seen.take() == []


@ROLES
def test_half_close_with_h2(tunnel: Any) -> None:
    both, stream = tunnel()
    both.forget()
    both.theirs.end_stream(stream)
    both.exchange()
    assert both.seen.take() == [("ended", stream)]
    send(both.ours, stream, b"answer", end=True)
    both.exchange()
    assert [event.data for event in both.of(DataReceived)] == [b"answer"]
    assert both.of(StreamEnded)
    assert both.ours.open_streams == 0


@ROLES
def test_ping_and_goaway_with_h2(tunnel: Any) -> None:
    both, stream = tunnel()
    both.forget()
    both.ours.ping(b"01234567")
    both.theirs.ping(b"76543210")
    both.exchange()
    assert both.seen.take() == [("pong", b"01234567")]
    assert [event.ping_data for event in both.of(PingAckReceived)] == [b"76543210"]
    both.theirs.close_connection(last_stream_id=stream, additional_data=b"bye")
    both.exchange()
    assert both.seen.take() == [("goaway", stream, 0, b"bye")]
    assert both.ours.is_going_away


def test_our_goaway_reaches_h2() -> None:
    both, stream = as_server()
    both.ours.go_away(ErrorCode.NO_ERROR, b"drain")
    both.exchange()
    [event] = both.of(ConnectionTerminated)
    assert (event.last_stream_id, event.error_code, event.additional_data) == (stream, 0, b"drain")


def test_h2_limits_our_streams() -> None:
    both = Both(Role.CLIENT)
    both.theirs.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2, SettingCodes.HEADER_TABLE_SIZE: 0})
    both.exchange()
    assert both.seen.take() == [("limits",)]
    assert both.ours.available_streams == 2
    both.ours.open("10.0.0.1:80")
    both.ours.open("10.0.0.1:80")
    both.exchange()
    assert len(both.of(RequestReceived)) == 2, "an encoder that had a table confirms that it is gone"
    assert both.ours.available_streams == 0


def test_h2_knows_our_limits() -> None:
    both = Both(Role.SERVER, Limits(max_concurrent_streams=3))
    settings = both.theirs.remote_settings
    assert (settings.max_concurrent_streams, settings.max_frame_size) == (3, 1 << 20)
    assert (settings.initial_window_size, settings.max_header_list_size) == (64 << 10, 64 << 10)
    both = Both(Role.CLIENT)
    assert both.theirs.remote_settings.enable_push == 0
    assert both.theirs.remote_settings.max_header_list_size == 16 << 10
    assert not both.of(RemoteSettingsChanged)


def test_large_headers_are_continued() -> None:
    both = Both(Role.CLIENT)
    fields = [(f"x-{index}", "v" * 3000) for index in range(15)]
    both.ours.open("10.0.0.1:80", fields)
    both.exchange()
    [request] = both.of(RequestReceived)
    assert request.headers[2:] == fields


def test_large_headers_from_h2() -> None:
    both = Both(Role.SERVER)
    both.theirs.max_outbound_frame_size = 16384
    fields = [(f"x-{index}", "v" * 3000) for index in range(15)]
    both.theirs.send_headers(1, CONNECT + fields)
    both.exchange()
    assert both.seen.taken("request") == [("request", 1, dict(CONNECT + fields), False)]


def test_ids_run_out() -> None:
    both = Both(Role.CLIENT)
    both.ours._core.streams.highest = (1 << 31) - 3
    assert both.ours.open("10.0.0.1:80") == (1 << 31) - 1
    assert both.ours.is_going_away
    with pytest.raises(GoingAway):
        both.ours.open("10.0.0.1:80")
