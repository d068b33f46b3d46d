"""A client and a server connection against each other."""

from __future__ import annotations

import pytest

from mesh.hbone import BadRequest, Connection, ConnectRequest, ErrorCode, GoingAway, Limits, Role, TooManyStreams
from tests.hbone import wire
from tests.hbone.ends import Pair, Recorder, drain, feed, send


@pytest.fixture
def pair() -> Pair:
    pair = Pair()
    pair.exchange()
    pair.at_client.take(), pair.at_server.take()
    return pair


def test_connect_carries_authority_and_headers(pair: Pair) -> None:
    stream = pair.client.open("10.0.0.1:80", [("baggage", "k8s.cluster.name=Kubernetes" * 10), ("forwarded", "for=x")])
    pair.exchange()
    headers = {
        ":method": "CONNECT",
        ":authority": "10.0.0.1:80",
        "baggage": "k8s.cluster.name=Kubernetes" * 10,
        "forwarded": "for=x",
    }
    assert pair.at_server.take() == [("request", stream, headers, False)]
    pair.server.respond(stream, 200, [("baggage", "there")])
    pair.exchange()
    assert pair.at_client.take() == [("response", stream, 200, {":status": "200", "baggage": "there"}, False)]


def test_bytes_both_ways_and_half_close(pair: Pair) -> None:
    stream = pair.tunnel()
    assert send(pair.client, stream, b"ping", end=True) == 4
    pair.exchange()
    assert pair.at_server.take() == [("data", stream, b"ping"), ("ended", stream)]
    assert pair.client.reserve(stream) is None
    send(pair.server, stream, b"pong")
    pair.exchange()
    pair.server.end(stream)
    pair.exchange()
    assert pair.at_client.take() == [("data", stream, b"pong"), ("ended", stream)]
    assert pair.client.open_streams == pair.server.open_streams == 0


def test_a_reset_arrives_as_a_reset(pair: Pair) -> None:
    stream = pair.tunnel()
    pair.client.reset(stream, ErrorCode.CANCEL)
    send(pair.server, stream, b"too late")
    pair.exchange()
    assert pair.at_server.take() == [("reset", stream, ErrorCode.CANCEL)]
    assert pair.at_client.take() == []
    assert pair.client.open_streams == pair.server.open_streams == 0


def test_a_refusal_ends_the_stream_on_both_sides(pair: Pair) -> None:
    stream = pair.client.open("10.0.0.1:80")
    pair.exchange()
    pair.server.respond(stream, 503, end=True)
    pair.exchange()
    assert pair.at_client.take()[0] == ("response", stream, 503, {":status": "503"}, True)
    assert pair.client.open_streams == pair.server.open_streams == 0


def test_a_megabyte_needs_acknowledgements(pair: Pair) -> None:
    stream = pair.tunnel()
    data, at = bytes(range(256)) * 8192, 0
    while at < len(data):
        sent = send(pair.client, stream, data[at : at + (1 << 20)])
        at += sent
        pair.exchange()
        if not sent:
            assert pair.client.starved(stream)
            received = len(pair.at_server.bytes.pop(stream))
            pair.server.acknowledge(stream, received)
            pair.exchange()
            assert ("writable", stream) in pair.at_client.take()
    got = b"".join(event[2] for event in pair.at_server.taken("data"))
    assert got == data


def test_goaway_leaves_open_streams_and_refuses_new_ones(pair: Pair) -> None:
    stream = pair.tunnel()
    in_flight = pair.client.open("10.0.0.2:80")
    late = drain(pair.client)
    pair.server.go_away(reason=b"drain")
    feed(pair.client, drain(pair.server))
    assert pair.at_client.take() == [
        ("goaway", stream, 0, b"drain"),
        ("reset", in_flight, ErrorCode.REFUSED_STREAM),
    ]
    feed(pair.server, late)
    assert pair.at_server.take() == []
    with pytest.raises(GoingAway):
        pair.client.open("10.0.0.3:80")
    send(pair.client, stream, b"still here")
    pair.exchange()
    assert pair.at_server.take() == [("data", stream, b"still here")]


def test_the_peers_stream_limit_is_respected() -> None:
    pair = Pair(server=Limits(max_concurrent_streams=2))
    pair.exchange()
    assert pair.client.available_streams == 2
    first = pair.client.open("10.0.0.1:80")
    pair.client.open("10.0.0.1:80")
    with pytest.raises(TooManyStreams):
        pair.client.open("10.0.0.1:80")
    pair.client.reset(first, ErrorCode.CANCEL)
    assert pair.client.available_streams == 1


def test_ping(pair: Pair) -> None:
    pair.client.ping(b"12345678")
    pair.exchange()
    assert pair.at_client.take() == [("pong", b"12345678")]


def test_nothing_is_heard_of_a_stream_that_was_reset_in_the_middle_of_a_frame(pair: Pair) -> None:
    stream, other = pair.tunnel(), pair.tunnel()
    send(pair.client, stream, b"abcdefgh", end=True)
    send(pair.client, other, b"more", end=True)
    sent = drain(pair.client)
    feed(pair.server, sent[:12])
    assert pair.at_server.take() == [("data", stream, b"abc")]
    pair.server.reset(stream, ErrorCode.CANCEL)
    feed(pair.server, sent[12:])
    assert pair.at_server.take() == [("data", other, b"more"), ("ended", other)]


def test_an_app_may_reset_any_stream_when_it_hears_of_one() -> None:
    class Resetting(Recorder):
        connection: Connection

        def data_received(self, stream: int, pieces: list[memoryview]) -> None:
            super().data_received(stream, pieces)
            self.connection.reset(1, ErrorCode.CANCEL)
            self.connection.reset(3, ErrorCode.CANCEL)

    recorder = Resetting()
    server = recorder.connection = Connection(Role.SERVER, recorder)
    tunnels = [wire.headers(stream, wire.CONNECT) for stream in (1, 3, 5)]
    feed(server, wire.PREFACE + wire.settings() + b"".join(tunnels))
    recorder.take()
    data = [wire.raw(wire.DATA, 0, stream, b"some") + wire.raw(wire.DATA, 1, stream, b"more") for stream in (1, 3, 5)]
    feed(server, b"".join(data))
    assert recorder.take() == [("data", 1, b"somemore"), ("data", 5, b"somemore"), ("ended", 5)]


def test_the_stream_in_goaway_never_rises(pair: Pair) -> None:
    stream = pair.tunnel()
    late = [pair.client.open("10.0.0.2:80") for _ in range(2)]
    opened = drain(pair.client)
    pair.server.go_away()
    feed(pair.server, opened)
    pair.server.go_away(ErrorCode.INTERNAL_ERROR)
    feed(pair.client, drain(pair.server))
    said = [event[1] for event in pair.at_client.taken("goaway")]
    assert said == [stream, stream]
    assert late[0] > stream


def test_a_client_says_that_it_processed_no_streams(pair: Pair) -> None:
    pair.tunnel()
    pair.client.go_away()
    pair.exchange()
    assert pair.at_server.take() == [("goaway", 0, 0, b"")]


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [("10.0.0.1:80", "10.0.0.1", 80), ("[FD00::1]:443", "fd00::1", 443), ("Web.shop.svc:1", "web.shop.svc", 1)],
)
def test_authority(authority: str, host: str, port: int) -> None:
    request = ConnectRequest.parse({":method": "CONNECT", ":authority": authority, "x": "y"})
    assert (request.host, request.port, request.headers) == (host, port, {"x": "y"})


@pytest.mark.parametrize("authority", ["", "a", "a:", ":80", "a:0", "a:65536", "fd00::1:80", "[fd00::1]", "[x]:80"])
def test_bad_authority(authority: str) -> None:
    with pytest.raises(BadRequest, match="authority"):
        ConnectRequest.parse({":method": "CONNECT", ":authority": authority})
