"""What RFC 9113 forbids, and the error that answers it."""

from __future__ import annotations

import struct

import pytest

from mesh.hbone import Connection, ConnectionFailed, ErrorCode, Limits, Role
from tests.hbone.ends import Recorder, drain, feed
from tests.hbone.wire import (
    ACK,
    CONNECT,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    OK,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PRIORITY,
    PUSH,
    RST,
    SETTINGS,
    UPDATE,
    block,
    goaway,
    headers,
    literals,
    raw,
    read,
    rst,
    settings,
    update,
)

START = PREFACE + settings()
TUNNEL = START + headers(1, CONNECT)
P, F, S = ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR, ErrorCode.STREAM_CLOSED
FLOW, CALM, PACKED = ErrorCode.FLOW_CONTROL_ERROR, ErrorCode.ENHANCE_YOUR_CALM, ErrorCode.COMPRESSION_ERROR
SMALL = Limits(initial_window=65535, connection_window=200_000, max_frame=16384, max_header_list=4096)


def server() -> tuple[Connection, Recorder]:
    recorder = Recorder()
    return Connection(Role.SERVER, recorder, SMALL), recorder


def client_with_stream() -> tuple[Connection, Recorder]:
    """A client that has sent its CONNECT on stream 1 and knows the server's settings."""
    recorder = Recorder()
    client = Connection(Role.CLIENT, recorder, SMALL)
    feed(client, settings())
    assert client.open("10.0.0.1:80") == 1
    drain(client), recorder.take()
    return client, recorder


def connection_error(connection: Connection, data: bytes, step: int | None = None) -> ErrorCode:
    with pytest.raises(ConnectionFailed) as raised:
        feed(connection, data, step)
    last = list(read(drain(connection)))[-1]
    assert last.kind == GOAWAY
    assert struct.unpack(">I", last.payload[4:8])[0] == raised.value.code, "GOAWAY says what the exception says"
    assert connection.failure is raised.value
    return raised.value.code


FATAL_FOR_SERVER = {
    "HTTP/1.1": (b"GET / HTTP/1.1\r\n\r\n", P),
    "broken preface": (PREFACE[:-1] + b"x", P),
    "no SETTINGS first": (PREFACE + headers(1, CONNECT), P),
    "acknowledgement first": (PREFACE + raw(SETTINGS, ACK), P),
    "unknown frame first": (PREFACE + raw(99), P),
    "frame beyond MAX_FRAME_SIZE": (TUNNEL + raw(DATA, 0, 1, bytes(16385)), F),
    "unknown frame beyond MAX_FRAME_SIZE": (START + raw(99, 0, 0, length=16385), F),
    "DATA on stream 0": (START + raw(DATA, 0, 0, b"x"), P),
    "DATA on idle": (START + raw(DATA, 0, 1, b"x"), P),
    "empty DATA on idle": (START + raw(DATA, 0, 1), P),
    "DATA on an even stream": (TUNNEL + raw(DATA, 0, 2, b"x"), P),
    "DATA with too much padding": (TUNNEL + raw(DATA, PADDED, 1, b"\x02x"), P),
    "DATA with a pad length of its size": (TUNNEL + raw(DATA, PADDED, 1, b"\x01"), P),
    "padded DATA without pad length": (TUNNEL + raw(DATA, PADDED, 1), F),
    "HEADERS on stream 0": (START + headers(0, CONNECT), P),
    "HEADERS on an even stream": (START + headers(2, CONNECT), P),
    "HEADERS on a stream that was skipped": (START + headers(3, CONNECT) + headers(1, CONNECT), P),
    "HEADERS on a stream that the client reset": (TUNNEL + rst(1) + headers(1, CONNECT), S),
    "HEADERS with too much padding": (START + raw(HEADERS, PADDED | END_HEADERS, 1, b"\x05abcd"), P),
    "padded HEADERS without pad length": (START + raw(HEADERS, PADDED | END_HEADERS, 1), F),
    "HEADERS with half a priority": (START + raw(HEADERS, PRIORITISED | END_HEADERS, 1, b"abcd"), F),
    "other frame in a header block": (START + headers(1, CONNECT, 0) + raw(PING, 0, 0, bytes(8)), P),
    "unknown frame in a header block": (START + headers(1, CONNECT, 0) + raw(99), P),
    "DATA in another stream's header block": (TUNNEL + headers(3, CONNECT, 0) + raw(DATA, 0, 1, b"x"), P),
    "CONTINUATION of another stream": (START + headers(1, CONNECT, 0) + raw(CONTINUATION, 4, 3, b""), P),
    "CONTINUATION of nothing": (START + raw(CONTINUATION, END_HEADERS, 1, b"\x82"), P),
    "CONTINUATION after the end": (TUNNEL + raw(CONTINUATION, END_HEADERS, 1, b"\x82"), P),
    "PRIORITY on stream 0": (START + raw(PRIORITY, 0, 0, bytes(5)), P),
    "PRIORITY of four bytes": (START + raw(PRIORITY, 0, 1, bytes(4)), F),
    "RST_STREAM on stream 0": (START + rst(0), P),
    "RST_STREAM on idle": (START + rst(1), P),
    "RST_STREAM of three bytes": (TUNNEL + raw(RST, 0, 1, bytes(3)), F),
    "SETTINGS on a stream": (START + raw(SETTINGS, 0, 1), P),
    "SETTINGS of five bytes": (START + raw(SETTINGS, 0, 0, bytes(5)), F),
    "acknowledged SETTINGS with payload": (START + raw(SETTINGS, ACK, 0, bytes(6)), F),
    "ENABLE_PUSH of two": (START + settings((2, 2)), P),
    "ENABLE_CONNECT_PROTOCOL of two": (START + settings((8, 2)), P),
    "INITIAL_WINDOW_SIZE of 2^31": (START + settings((4, 1 << 31)), FLOW),
    "MAX_FRAME_SIZE too small": (START + settings((5, 16383)), P),
    "MAX_FRAME_SIZE too large": (START + settings((5, 1 << 24)), P),
    "thousands of settings": (START + settings(*[(4, 1)] * 2000), CALM),
    "INITIAL_WINDOW_SIZE overflows a stream": (TUNNEL + update(1, 1 << 30) + settings((4, (1 << 31) - 1)), FLOW),
    "PUSH_PROMISE": (TUNNEL + raw(PUSH, END_HEADERS, 1, bytes(4)), P),
    "PING of seven bytes": (START + raw(PING, 0, 0, bytes(7)), F),
    "PING on a stream": (TUNNEL + raw(PING, 0, 1, bytes(8)), P),
    "GOAWAY on a stream": (TUNNEL + raw(GOAWAY, 0, 1, bytes(8)), P),
    "GOAWAY of seven bytes": (START + raw(GOAWAY, 0, 0, bytes(7)), F),
    "WINDOW_UPDATE of three bytes": (START + raw(UPDATE, 0, 0, bytes(3)), F),
    "WINDOW_UPDATE of nothing": (START + update(0, 0), P),
    "WINDOW_UPDATE on idle": (START + update(1, 1), P),
    "WINDOW_UPDATE on an even stream": (START + update(2, 1), P),
    "connection window beyond 2^31-1": (START + update(0, (1 << 31) - 1), FLOW),
    "static index 0": (START + raw(HEADERS, 5, 1, b"\x80"), PACKED),
    "index beyond the table": (START + raw(HEADERS, 5, 1, b"\xbe"), PACKED),
    "truncated literal": (START + raw(HEADERS, 5, 1, b"\x00\x05ab"), PACKED),
    "literal without value": (START + raw(HEADERS, 5, 1, b"\x00\x01a"), PACKED),
    "endless integer": (START + raw(HEADERS, 5, 1, b"\x00\x7f" + b"\xff" * 20), PACKED),
    "Huffman padding of zeros": (START + raw(HEADERS, 5, 1, b"\x00\x01a\x81\x00"), PACKED),
    "table size beyond ours": (START + raw(HEADERS, 5, 1, b"\x3f\xe2\x1f" + block(CONNECT)), PACKED),
    "table size after a field": (START + raw(HEADERS, 5, 1, block(CONNECT) + b"\x20"), PACKED),
    "header block beyond the limit": (START + raw(HEADERS, 5, 1, bytes(6000)), CALM),
    "header block beyond the limit, in fragments": (
        START + raw(HEADERS, 0, 1, bytes(3000)) + raw(CONTINUATION, 0, 1, bytes(3000)),
        CALM,
    ),
    "endless empty fragments": (START + raw(HEADERS, 0, 1) + raw(CONTINUATION, 0, 1) * 100, CALM),
    "a bomb of indexed fields": (
        START + raw(HEADERS, 5, 1, b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + b"\xbe" * 50),
        CALM,
    ),
}


@pytest.mark.parametrize("name", FATAL_FOR_SERVER)
@pytest.mark.parametrize("step", [None, 1])
def test_server_fails_the_connection(name: str, step: int | None) -> None:
    data, code = FATAL_FOR_SERVER[name]
    connection, _ = server()
    assert connection_error(connection, data, step) is code


FATAL_FOR_CLIENT = {
    "DATA on idle": (raw(DATA, 0, 3, b"x"), P),
    "HEADERS on idle": (headers(3, OK), P),
    "HEADERS on an even stream": (headers(2, OK), P),
    "PUSH_PROMISE": (raw(PUSH, END_HEADERS, 1, bytes(4)), P),
    "ENABLE_PUSH from a server": (settings((2, 1)), P),
    "RST_STREAM on idle": (rst(3), P),
    "HEADERS after both ends closed": (headers(1, OK, 5) + rst(1) + headers(1, OK), S),
}


@pytest.mark.parametrize("name", FATAL_FOR_CLIENT)
def test_client_fails_the_connection(name: str) -> None:
    data, code = FATAL_FOR_CLIENT[name]
    connection, _ = client_with_stream()
    assert connection_error(connection, data) is code


def test_client_wants_settings_first() -> None:
    connection = Connection(Role.CLIENT, Recorder())
    assert connection_error(connection, raw(PING, 0, 0, bytes(8))) is P


def request(*fields: tuple[bytes, bytes], flags: int = END_HEADERS) -> bytes:
    return START + raw(HEADERS, flags, 1, literals(*fields))


METHOD, AUTHORITY = (b":method", b"CONNECT"), (b":authority", b"a:1")
GET_FIELDS = [(name.encode(), value.encode()) for name, value in GET]

MALFORMED_REQUESTS = {
    "no method": request(AUTHORITY),
    "empty method": request((b":method", b""), AUTHORITY),
    "CONNECT without authority": request(METHOD),
    "CONNECT with scheme": request(METHOD, AUTHORITY, (b":scheme", b"https")),
    "CONNECT with path": request(METHOD, AUTHORITY, (b":path", b"/")),
    "extended CONNECT, which is off": request(METHOD, AUTHORITY, (b":protocol", b"websocket")),
    "GET without scheme": request((b":method", b"GET"), (b":path", b"/")),
    "GET without path": request((b":method", b"GET"), (b":scheme", b"https")),
    "GET with empty path": request((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"")),
    "two methods": request(METHOD, METHOD, AUTHORITY),
    "two authorities": request(METHOD, AUTHORITY, AUTHORITY),
    "a response's field": request(METHOD, AUTHORITY, (b":status", b"200")),
    "unknown pseudo field": request(METHOD, AUTHORITY, (b":x", b"y")),
    "pseudo field after a regular one": request(METHOD, (b"a", b"b"), AUTHORITY),
    "upper case": request(METHOD, AUTHORITY, (b"Baggage", b"x")),
    "empty name": request(METHOD, AUTHORITY, (b"", b"x")),
    "space in a name": request(METHOD, AUTHORITY, (b"a b", b"x")),
    "colon in a name": request(METHOD, AUTHORITY, (b"a:b", b"x")),
    "name that is not ASCII": request(METHOD, AUTHORITY, ("ä".encode(), b"x")),
    "NUL in a value": request(METHOD, AUTHORITY, (b"a", b"x\0y")),
    "line feed in a value": request(METHOD, AUTHORITY, (b"a", b"x\ny")),
    "line feed at a value's end": request(METHOD, AUTHORITY, (b"a", b"x\n")),
    "return in a value": request(METHOD, AUTHORITY, (b"a", b"x\ry")),
    "space before a value": request(METHOD, AUTHORITY, (b"a", b" x")),
    "tab after a value": request(METHOD, AUTHORITY, (b"a", b"x\t")),
    "return in the authority": request(METHOD, (b":authority", b"a:1\r")),
    "connection": request(METHOD, AUTHORITY, (b"connection", b"close")),
    "keep-alive": request(METHOD, AUTHORITY, (b"keep-alive", b"1")),
    "proxy-connection": request(METHOD, AUTHORITY, (b"proxy-connection", b"close")),
    "transfer-encoding": request(METHOD, AUTHORITY, (b"transfer-encoding", b"chunked")),
    "upgrade": request(METHOD, AUTHORITY, (b"upgrade", b"h2c")),
    "te": request(METHOD, AUTHORITY, (b"te", b"gzip")),
    "another host": request(METHOD, AUTHORITY, (b"host", b"b:1")),
    "content-length is no number": request(*GET_FIELDS, (b"content-length", b"x")),
    "content-length twice": request(*GET_FIELDS, (b"content-length", b"1"), (b"content-length", b"2")),
    "body promised, none there": request(*GET_FIELDS, (b"content-length", b"1"), flags=5),
    "body shorter than promised": request(*GET_FIELDS, (b"content-length", b"2")) + raw(DATA, 1, 1, b"x"),
    "body shorter than promised, trailers": request(*GET_FIELDS, (b"content-length", b"2")) + headers(1, [], 5),
    "body longer than promised": request(*GET_FIELDS, (b"content-length", b"1")) + raw(DATA, 0, 1, b"xy"),
    "trailers with a pseudo field": request(*GET_FIELDS) + headers(1, OK, 5),
    "HEADERS in the middle": request(*GET_FIELDS) + headers(1, [("a", "b")]),
    "header list beyond the limit": START
    + raw(HEADERS, 4, 1, b"\x40\x01a\x7f\xd1\x0e" + b"b" * 2000 + b"\xbe" + literals(METHOD, AUTHORITY)),
}


@pytest.mark.parametrize("name", MALFORMED_REQUESTS)
def test_malformed_request_is_reset(name: str) -> None:
    connection, recorder = server()
    drain(connection)
    feed(connection, MALFORMED_REQUESTS[name])
    resets = [frame for frame in read(drain(connection)) if frame.kind == RST]
    assert [(frame.stream, frame.payload) for frame in resets] == [(1, struct.pack(">I", P))]
    assert [event for event in recorder.take() if event[0] not in ("limits", "request", "data")] in (
        [],
        [("reset", 1, P)],
    )
    assert connection.open_streams == 0
    feed(connection, headers(3, CONNECT))
    assert recorder.taken("request"), "the connection goes on"


@pytest.mark.parametrize("name", [n for n in MALFORMED_REQUESTS if "body" not in n and "trailers" not in n])
def test_malformed_request_is_not_seen(name: str) -> None:
    if name == "HEADERS in the middle":
        return
    connection, recorder = server()
    feed(connection, MALFORMED_REQUESTS[name])
    assert recorder.taken("request") == []


STREAM_ERRORS_OF_TUNNEL = {
    "DATA after END_STREAM": (raw(DATA, END_STREAM, 1) + raw(DATA, 0, 1, b"x"), S),
    "empty DATA after END_STREAM": (raw(DATA, END_STREAM, 1) + raw(DATA, 0, 1), S),
    "HEADERS after END_STREAM": (raw(DATA, END_STREAM, 1) + headers(1, [("a", "b")], 5), S),
    "DATA after RST_STREAM": (rst(1) + raw(DATA, 0, 1, b"x"), S),
    "DATA beyond the window": (raw(DATA, 0, 1, bytes(16384)) * 4, FLOW),
    "padded DATA beyond the window": (raw(DATA, PADDED, 1, b"\xff" + bytes(16000)) * 5, FLOW),
    "WINDOW_UPDATE of nothing": (update(1, 0), P),
    "window beyond 2^31-1": (update(1, (1 << 31) - 1), FLOW),
}


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("name", STREAM_ERRORS_OF_TUNNEL)
def test_stream_error(name: str, answered: bool) -> None:
    data, code = STREAM_ERRORS_OF_TUNNEL[name]
    connection, recorder = server()
    feed(connection, TUNNEL)
    if answered:
        connection.respond(1, 200)
    drain(connection), recorder.take()
    feed(connection, data)
    frames = [frame for frame in read(drain(connection)) if frame.kind == RST]
    assert [(frame.stream, frame.payload) for frame in frames] == [(1, struct.pack(">I", code))]
    assert recorder.taken("reset") == [("reset", 1, 8 if data.startswith(rst(1)) else code)]
    feed(connection, raw(DATA, 0, 1, b"still on its way") + update(1, 5) + headers(1, [("a", "b")], 5) + rst(1))
    assert drain(connection) == b""
    assert recorder.take() == []


def test_headers_in_a_tunnel_are_an_error() -> None:
    connection, recorder = server()
    feed(connection, TUNNEL)
    connection.respond(1, 200)
    feed(connection, headers(1, [("a", "b")], 5))
    assert recorder.taken("reset") == [("reset", 1, P)]


MALFORMED_RESPONSES = {
    "DATA before the response": raw(DATA, 0, 1, b"x"),
    "no status": headers(1, [("a", "b")]),
    "status of two digits": headers(1, [(":status", "20")]),
    "status of letters": headers(1, [(":status", "abc")]),
    "status 101": headers(1, [(":status", "101")]),
    "a request's field": headers(1, [(":status", "200"), (":method", "GET")]),
    "interim response that ends": headers(1, [(":status", "103")], 5),
    "refusal without the body it promises": headers(1, [(":status", "503"), ("content-length", "5")], 5),
}


@pytest.mark.parametrize("name", MALFORMED_RESPONSES)
def test_malformed_response_is_reset(name: str) -> None:
    connection, recorder = client_with_stream()
    feed(connection, MALFORMED_RESPONSES[name])
    assert recorder.take() == [("reset", 1, P)]
    assert [(f.kind, f.stream, f.payload) for f in read(drain(connection))] == [(RST, 1, struct.pack(">I", P))]
    assert connection.open_streams == 0


def test_connection_window_is_enforced() -> None:
    # The stream is within its own window.
    connection = Connection(Role.SERVER, Recorder(), Limits(initial_window=1 << 20, connection_window=65535))
    assert connection_error(connection, TUNNEL + raw(DATA, 0, 1, bytes(65536))) is FLOW


def test_nothing_is_heard_after_a_failure() -> None:
    connection, recorder = server()
    connection_error(connection, START + update(0, 0))
    recorder.take()
    with pytest.raises(ConnectionFailed):
        feed(connection, headers(1, CONNECT))
    assert recorder.take() == []
    assert connection.staged == 0
    connection.ping(bytes(8)), connection.reset(1, ErrorCode.CANCEL), connection.go_away()
    assert connection.staged == 0


VALID = {
    "priority on idle, open and closed": TUNNEL + raw(PRIORITY, 0, 9, bytes(5)) + raw(PRIORITY, 0, 1, bytes(5)),
    "unknown frame types": START + raw(99, 255, 7, bytes(100)) + headers(1, CONNECT),
    "unknown settings": START + settings((99, 1)) + headers(1, CONNECT),
    "reserved bit of the stream": START + headers(1 | 1 << 31, CONNECT),
    "padded and prioritised": START
    + raw(HEADERS, PADDED | PRIORITISED | END_HEADERS, 1, b"\x03" + bytes(5) + block(CONNECT) + bytes(3)),
    "Huffman": START + raw(HEADERS, END_HEADERS, 1, block(CONNECT, huffman=True)),
    "in fragments": START
    + raw(HEADERS, 0, 1, block(CONNECT)[:3])
    + raw(CONTINUATION, 0, 1)
    + raw(CONTINUATION, END_HEADERS, 1, block(CONNECT)[3:]),
    "te: trailers, and its own host": START + headers(1, [*CONNECT, ("te", "trailers"), ("host", "10.0.0.1:80")]),
    "goaway before": START + goaway(0) + headers(1, CONNECT),
    "stream numbers skipped": START + headers(1, CONNECT),
    "a table emptied and filled": START + raw(HEADERS, END_HEADERS, 1, b"\x20\x3f\xe1\x1f" + block(CONNECT)),
    "content-length in CONNECT": START + headers(1, [*CONNECT, ("content-length", "0")]) + raw(DATA, 0, 1, b"x"),
}


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("step", [None, 1])
def test_what_looks_odd_and_is_legal(name: str, step: int | None) -> None:
    connection, recorder = server()
    feed(connection, VALID[name], step)
    [event] = recorder.taken("request")
    assert event[1] == 1
    assert event[2][":authority"] == "10.0.0.1:80"


def test_trailers_end_a_request() -> None:
    connection, recorder = server()
    feed(connection, START + headers(1, GET) + raw(DATA, 0, 1, b"x") + headers(1, [("a", "b")], 5))
    assert [event[0] for event in recorder.take()] == ["limits", "request", "data", "ended"]


def test_interim_responses_are_passed_over() -> None:
    connection, recorder = client_with_stream()
    feed(connection, headers(1, [(":status", "100")]) + headers(1, [(":status", "103")]) + headers(1, OK))
    assert recorder.take() == [("response", 1, 200, {":status": "200"}, False)]


def test_fields_that_recur_are_joined() -> None:
    connection, recorder = server()
    feed(connection, START + headers(1, [*CONNECT, ("a", "1"), ("cookie", "x"), ("a", "2"), ("cookie", "y")]))
    [event] = recorder.taken("request")
    assert (event[2]["a"], event[2]["cookie"]) == ("1, 2", "x; y")
