"""A client and a server connection against each other."""

from __future__ import annotations

import pytest

from mesh.hbone import BadRequest, ConnectRequest, ErrorCode, GoingAway, Limits, TooManyStreams
from tests.hbone.ends import Pair, drain, feed, send


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
