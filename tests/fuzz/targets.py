"""What is fuzzed in mesh.hbone: whatever bytes a peer sends, it gets an answer that the protocol has."""

from __future__ import annotations

import hpack

from mesh.hbone import BadRequest, Connection, ConnectionFailed, ConnectRequest, ErrorCode, Limits, Role, messages
from mesh.hbone.headers import HeaderDecoder, HeadersTooLarge
from tests.fuzz.engine import Target
from tests.hbone import wire
from tests.hbone.ends import Recorder, drain
from tests.hbone.meter import Meter

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


TARGETS: dict[str, Target] = {
    "frames": frames,
    "header_block": header_block,
    "connect_request": connect_request,
}
PACKAGE = "mesh/hbone"
