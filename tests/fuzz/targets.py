"""What is fuzzed: whatever bytes a peer or an app sends, it gets an answer that the protocol has.

There is no target for TLS: OpenSSL reads it, and nothing here looks into a ClientHello.
"""

from __future__ import annotations

import struct
from dataclasses import astuple
from ipaddress import ip_address

import hpack

from mesh.hbone import BadRequest, Connection, ConnectionFailed, ConnectRequest, ErrorCode, Limits, Role, messages
from mesh.hbone.connect_headers import build_forwarded, parse_baggage, parse_forwarded
from mesh.hbone.header_decoder import HeaderDecoder, HeadersTooLarge
from mesh.model.address import SocketAddress, canonical
from mesh.model.identity import SpiffeId
from tests.fuzz.engine import Target
from tests.fuzz.waypoint import client_hello, denied_path, request_target, route_table
from tests.hbone import wire
from tests.hbone.ends import Recorder, drain
from tests.hbone.meter import Meter
from ztunnel.dns.message import (
    Malformed,
    Records,
    answers,
    build_failure,
    build_reply,
    is_query,
    parse_query,
    payload_limit,
)
from ztunnel.plan.proxy_protocol import build_header

LIMITS = Limits(
    initial_window=65535,
    connection_window=70_000,
    max_frame=16384,
    max_concurrent_streams=4,
    max_header_list=2048,
    staging=16384,
    control_room=4096,
)
MOST_STAGED = 16384 + 16384 + 4096 + 1024


class App(Recorder):
    """Uses the connection from within its calls, the way a proxy does, depending on the stream's number."""

    connection: Connection

    def request_received(self, stream: int, headers: dict[str, str], ended: bool) -> None:
        super().request_received(stream, headers, ended)
        assert not any(character in value for value in headers.values() for character in "\r\n\0")
        assert headers[":method"]
        if stream % 7 == 0:
            return self.connection.reset(stream, ErrorCode.CANCEL)
        self.connection.respond(stream, 503 if stream % 5 == 0 else 200, end=stream % 5 == 0)
        self.send(stream)

    def data_received(self, stream: int, pieces: list[memoryview]) -> None:
        super().data_received(stream, pieces)
        self.connection.acknowledge(stream, sum(map(len, pieces)))

    def stream_ended(self, stream: int) -> None:
        super().stream_ended(stream)
        self.send(stream)
        if stream % 3 == 0 and self.answered(stream):
            self.connection.end(stream)

    def stream_writable(self, stream: int) -> None:
        super().stream_writable(stream)
        self.send(stream)

    def answered(self, stream: int) -> bool:
        return self.connection.reserve(stream) is not None

    def send(self, stream: int) -> None:
        room = self.connection.reserve(stream)
        if room is not None:
            size = min(len(room), 100)
            room[:size] = bytes(size)
            self.connection.commit(stream, size)


def frames(data: bytes) -> None:
    """The first byte picks role and cuts; the rest is what the peer sends behind its preface and SETTINGS."""
    head, rest = (data[0], data[1:]) if data else (0, b"")
    role = Role.CLIENT if head & 1 else Role.SERVER
    start = b"" if head & 2 else (wire.PREFACE if role is Role.SERVER else b"") + wire.settings()
    data = start + rest
    whole = _play(role, data, len(data) or 1)
    assert _play(role, data, 1 if head & 4 else 1 + head // 8) == whole, "the cuts of the network make a difference"


def _play(role: Role, data: bytes, step: int) -> tuple[object, ...]:
    """What can be seen of a connection that gets `data` in pieces of `step` bytes."""
    app, meter, said = App(), Meter(), b""
    connection = app.connection = Connection(role, app, LIMITS)
    for _ in range(3 if role is Role.CLIENT else 0):
        connection.open("10.0.0.1:80")
    failure = None
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        connection.receive_buffer()[: len(piece)] = piece
        try:
            connection.received(len(piece))
        except ConnectionFailed as failed:
            failure = failed
        assert connection.staged <= MOST_STAGED
        staged = drain(connection)
        said += staged
        if step == 1:  # only then is it known what had been heard when each frame was staged
            meter.heard(piece)
            meter.said(staged)
        if failure:
            break
    answers = list(wire.read(said))
    assert not failure or answers[-1].kind == wire.GOAWAY, "GOAWAY is the last frame of a failure"
    assert connection.open_streams <= 4
    seen = [event for event in app.events if event[0] != "writable"]
    # Credit for the connection goes back once per call of received(), so how often depends on the cuts.
    answers = [answer for answer in answers if (answer.kind, answer.stream) != (wire.UPDATE, 0)]
    return seen, answers, str(failure), connection.open_streams


def header_block(data: bytes) -> None:
    """A sequence of header blocks, each behind its length: all agree with the hpack library, tables included."""
    ours, theirs = HeaderDecoder(1 << 14), hpack.Decoder(1 << 16)
    at = 0
    while at < len(data):
        block = data[at + 1 : at + 1 + data[at]]
        at += 1 + len(block)
        expected, fields = _decoded_by_library(theirs, block), _decoded(ours, block)
        if fields is None:
            assert expected is None
            return
        if fields:
            assert fields == expected
        _validate(fields)


def _decoded(decoder: HeaderDecoder, block: bytes) -> list[tuple[str, str]] | None:
    """None for an error of the connection, nothing for a list that is too large."""
    try:
        return [(name, value) for name, value in decoder.decode(block)]
    except HeadersTooLarge:
        return []
    except ConnectionFailed as failed:
        if failed.code not in (ErrorCode.COMPRESSION_ERROR, ErrorCode.ENHANCE_YOUR_CALM):
            raise
        return None


def _decoded_by_library(decoder: hpack.Decoder, block: bytes) -> list[tuple[str, str]] | None:
    try:
        fields = decoder.decode(block, raw=True)
    except (hpack.HPACKError, IndexError, ValueError):
        return None
    return [(str(name, "utf-8", "replace"), str(value, "utf-8", "replace")) for name, value in fields]


def _validate(fields: list[tuple[str, str]]) -> None:
    for check in (messages.request, messages.response, messages.trailers):
        try:
            check(fields)
        except messages.Malformed:
            pass


def connect_request(data: bytes) -> None:
    """Method and authority, with a line feed between: a destination that says the same when it is written again."""
    method, _, authority = data.decode("utf-8", "replace").partition("\n")
    try:
        request = ConnectRequest.parse({":method": method, ":authority": authority, "x": "y"})
    except BadRequest:
        return
    assert method == "CONNECT"
    assert 0 < request.port < 65536
    assert request.host == request.host.lower()
    assert request.headers == {"x": "y"}
    host = f"[{request.host}]" if ":" in request.host else request.host
    again = ConnectRequest.parse({":method": "CONNECT", ":authority": f"{host}:{request.port}"})
    assert (again.host, again.port) == (request.host, request.port)
    if request.address is not None:
        assert request.address.port == request.port


def proxy_header(data: bytes) -> None:
    """Two addresses, two ports and a name: what is built is what the specification's reader reads."""
    data = data.ljust(40, b"\0")
    kinds, ports, octets = data[0], struct.unpack("!HH", data[1:5]), (data[5:21], data[21:37])
    source, destination = (
        SocketAddress(canonical(str(ip_address(each if kinds >> bit & 1 else each[:4]))), port)
        for bit, (each, port) in enumerate(zip(octets, ports, strict=True))
    )
    name = "".join(chr(97 + octet % 26) for octet in data[37:]) or "x"
    peer = SpiffeId("cluster.local", "shop", name)
    header = build_header(source, destination, peer)
    assert header[:14] == b"\r\n\r\n\x00\r\nQUIT\n\x21" + header[13:14]
    size = struct.unpack("!H", header[14:16])[0]
    assert len(header) == 16 + size
    width = 16 if header[13] == 0x21 else 4
    read = [ip_address(header[16 + n * width :][:width]) for n in (0, 1)]
    assert [getattr(ip, "ipv4_mapped", None) or ip for ip in read] == [
        getattr(ip_address(each.ip), "ipv4_mapped", None) or ip_address(each.ip) for each in (source, destination)
    ]
    assert struct.unpack("!HH", header[16 + 2 * width :][:4]) == ports
    kind, length = struct.unpack("!BH", header[20 + 2 * width :][:3])
    assert (kind, header[23 + 2 * width :]) == (0xD0, str(peer).encode())
    assert length == len(str(peer))


def peer_headers(data: bytes) -> None:
    """What a peer claims of itself in baggage and forwarded: never an exception, never an unbounded value."""
    text = data.decode("utf-8", "replace")
    baggage = parse_baggage(text)
    assert all(len(value) <= 256 and value.isprintable() for value in astuple(baggage))
    forwarded = parse_forwarded(text)
    assert len(forwarded.host) <= 253
    if forwarded.client is not None:
        assert parse_forwarded(build_forwarded(forwarded.client)).client == forwarded.client


def dns_query(data: bytes) -> None:
    """Whatever an app sends to port 53."""
    if not is_query(data):
        return
    try:
        query = parse_query(data)
    except Malformed:
        assert build_failure(data, 1)[:2] == data[:2]
        return
    if query.question is None:  # for the real resolver
        return
    reply = build_reply(query, Records((canonical("10.0.0.1"),) * 100), payload_limit(query))
    assert len(reply) <= payload_limit(query)
    assert answers(reply, data)


TARGETS: dict[str, Target] = {
    "frames": frames,
    "header_block": header_block,
    "connect_request": connect_request,
    "proxy_header": proxy_header,
    "peer_headers": peer_headers,
    "dns_query": dns_query,
    "client_hello": client_hello,
    "request_target": request_target,
    "denied_path": denied_path,
    "route_table": route_table,
}
# What coverage is looked at.
PACKAGES = {
    "proxy_header": "ztunnel/plan",
    "peer_headers": "ztunnel/plan",
    "dns_query": "ztunnel/dns",
    "client_hello": "waypoint/serve",
    "request_target": "waypoint/routing",
    "denied_path": "mesh/policy/http",
    "route_table": "waypoint/routing",
}
PACKAGE = "mesh/hbone"
