"""HTTP/2 and gRPC through a waypoint, with clients and servers that are not ours."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from mesh.model.http_policy import HttpPolicy
from mesh.model.routing import AppProtocol
from tests.waypoint.rig import Rig, app, read_all, read_until
from tests.waypoint.test_http1 import read_head

METHODS = {
    "Unary": (grpc.unary_unary_rpc_method_handler, lambda request, context: request.upper()),
    "Fail": (
        grpc.unary_unary_rpc_method_handler,
        lambda request, context: context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ä%"),
    ),
    "Down": (
        grpc.unary_stream_rpc_method_handler,
        lambda request, context: (b"%d" % number for number in range(int(request))),
    ),
    "Up": (grpc.stream_unary_rpc_method_handler, lambda requests, context: b"".join(requests)),
    "Both": (grpc.stream_stream_rpc_method_handler, lambda requests, context: (one[::-1] for one in requests)),
}


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as running:
        yield running


class Echo:
    """A running server of METHODS at 127.9.1.1."""

    def __enter__(self) -> int:
        self._server = grpc.server(ThreadPoolExecutor(8))
        handlers = {name: kind(behaviour) for name, (kind, behaviour) in METHODS.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
        port = self._server.add_insecure_port("127.9.1.1:0")
        self._server.start()
        return int(port)

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


@pytest.mark.parametrize("protocol", [AppProtocol.GRPC, AppProtocol.AUTO])
def test_all_kinds_of_calls(rig: Rig, protocol: AppProtocol) -> None:
    with Echo() as port:
        rig.simple(protocol, target=port)
        with grpc.insecure_channel(f"127.0.0.1:{rig.listen()}") as channel:
            assert channel.unary_unary("/test.Echo/Unary")(b"hello", timeout=10) == b"HELLO"
            assert list(channel.unary_stream("/test.Echo/Down")(b"100", timeout=10)) == [b"%d" % n for n in range(100)]
            assert (
                channel.stream_unary("/test.Echo/Up")(iter([b"a", b"b" * 300_000]), timeout=10) == b"a" + b"b" * 300_000
            )
            both = channel.stream_stream("/test.Echo/Both")(iter([b"ab", b"cd"]), timeout=10)
            assert list(both) == [b"ba", b"dc"]
    assert len(rig.connects) == 1, "one connection for all of them"
    assert [record.grpc_status for record in rig.witness.requests] == ["0"] * 4


def test_a_failure_keeps_its_words(rig: Rig) -> None:
    with Echo() as port:
        rig.simple(AppProtocol.GRPC, target=port)
        with grpc.insecure_channel(f"127.0.0.1:{rig.listen()}") as channel:
            with pytest.raises(grpc.RpcError) as failure:
                channel.unary_unary("/test.Echo/Fail")(b"", timeout=10)
            assert failure.value.code() is grpc.StatusCode.NOT_FOUND
            assert failure.value.details() == "no such thing: ä%"


def test_a_denied_call_is_permission_denied(rig: Rig) -> None:
    with Echo() as port:
        rig.simple(AppProtocol.GRPC, target=port)
        rig.policy(HttpPolicy("shop", "nothing"))
        with grpc.insecure_channel(f"127.0.0.1:{rig.listen()}") as channel:
            with pytest.raises(grpc.RpcError) as failure:
                channel.unary_unary("/test.Echo/Unary")(b"", timeout=10)
            assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "nothing" in rig.witness.requests[0].reason


def test_a_server_that_is_away_is_unavailable(rig: Rig) -> None:
    rig.simple(AppProtocol.GRPC, target=9)
    with grpc.insecure_channel(f"127.0.0.1:{rig.listen()}") as channel:
        with pytest.raises(grpc.RpcError) as failure:
            channel.unary_unary("/test.Echo/Unary")(b"", timeout=10)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE


def test_many_calls_at_once(rig: Rig) -> None:
    with Echo() as port:
        rig.simple(AppProtocol.GRPC, target=port)
        with grpc.insecure_channel(f"127.0.0.1:{rig.listen()}") as channel:
            call = channel.unary_unary("/test.Echo/Unary")
            futures = [call.future(b"x%d" % number, timeout=20) for number in range(500)]
            assert [future.result() for future in futures] == [b"X%d" % number for number in range(500)]


class Http2:
    """A client of the h2 library on a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.http = H2Connection(
            H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        self.http.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.http.data_to_send())

    def request(self, *headers: tuple[str, str], body: bytes = b"", **pseudo: str) -> int:
        stream = self.http.get_next_available_stream_id()
        names = {"method": "GET", "scheme": "http", "authority": "web", "path": "/", **pseudo}
        self.http.send_headers(stream, [(f":{k}", v) for k, v in names.items()] + list(headers), end_stream=not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    def answer(self, stream: int) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """Headers, body, trailers. Raises EOFError when the stream is reset."""
        headers: dict[str, str] = {}
        trailers: dict[str, str] = {}
        body = b""
        while True:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError("closed")
            for event in self.http.receive_data(data):
                if isinstance(event, ResponseReceived) and event.stream_id == stream:
                    headers = _text(event.headers)
                elif isinstance(event, TrailersReceived) and event.stream_id == stream:
                    trailers = _text(event.headers)
                elif isinstance(event, DataReceived):
                    self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    body += event.data if event.stream_id == stream else b""
                elif isinstance(event, StreamReset) and event.stream_id == stream:
                    raise EOFError(f"reset: {event.error_code}")
                elif isinstance(event, StreamEnded) and event.stream_id == stream:
                    self.flush()
                    return headers, body, trailers
            self.flush()


def _text(headers: object) -> dict[str, str]:
    return {str(k, "latin-1"): str(v, "latin-1") for k, v in headers}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "headers",
    [
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
        [("upgrade", "h2c")],
        [("te", "gzip")],
        [("Upper", "x")],
        [("a b", "x")],
        [("x", "a\r\nb: c")],
        [("x", "a\0b")],
        [("x", " padded")],
        [("content-length", "1")],
        [("content-length", "0"), ("content-length", "0")],
        [(":late", "x")],
        [("host", "other")],
        [("content_length", "1")],
        [("transfer_encoding", "chunked")],
        [("x_forwarded_client_cert", "forged")],
    ],
    ids=str,
)
def test_what_no_request_of_http2_may_have_reaches_nobody(rig: Rig, headers: list[tuple[str, str]]) -> None:
    reached: list[bytes] = []
    with app("127.9.1.1", lambda sock: reached.append(sock.recv(100))) as port:
        rig.simple(AppProtocol.HTTP2, target=port)
        client = Http2(rig.dial())
        stream = client.request(*headers)
        try:
            answer, _, _ = client.answer(stream)
        except EOFError:
            pass
        else:
            assert answer[":status"] == "400"
    assert not reached


@pytest.mark.parametrize("path", ["http://other/", "a", "other:80", "", "/a\r\nX: y", "/a b", "/\0"])
def test_a_path_that_is_none_reaches_nobody(rig: Rig, path: str) -> None:
    """HTTP/2 knows no URI in :path, which would name another authority than :authority."""
    reached: list[bytes] = []
    with app("127.9.1.1", lambda sock: reached.append(sock.recv(100))) as port:
        rig.simple(AppProtocol.HTTP2, target=port)
        client = Http2(rig.dial())
        stream = client.request(path=path)
        try:
            answer, _, _ = client.answer(stream)
        except EOFError:
            pass
        else:
            assert answer[":status"] == "400"
    assert not reached


# --- what an endpoint speaks that speaks no HTTP/2


@pytest.mark.parametrize("protocol", [AppProtocol.HTTP, AppProtocol.AUTO])
def test_an_app_of_http1_is_spoken_to_as_such(rig: Rig, protocol: AppProtocol) -> None:
    """Neither is a request sent in vain nor an endpoint given up, even if nothing may be repeated."""
    with app("127.9.1.1", only_http1) as port:
        rig.simple(protocol, target=port)
        client = Http2(rig.dial())
        for body in (b"once", b"twice"):
            stream = client.request(("x-one", "1"), method="POST", path="/a//b", body=body)
            answer, got, _ = client.answer(stream)
            assert answer[":status"] == "200"
            assert got.startswith(b"POST /a/b HTTP/1.1\r\n")
            assert got.endswith(body + b"\r\n0\r\n\r\n")
    assert len(rig.connects) == 2, "it was asked once what it speaks"
    assert [record.attempts for record in rig.witness.requests] == [1, 1]


def only_http1(sock: socket.socket) -> None:
    while True:
        head = read_head(sock)
        if not head.split(b"\r\n")[0].endswith(b" HTTP/1.1"):
            sock.sendall(b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            return
        got = head + read_until(sock, b"0\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(got) + got)


def test_an_app_that_ends_what_it_does_not_understand_is_asked_in_http1(rig: Rig) -> None:
    def serve(sock: socket.socket) -> None:
        if sock.recv(3) == b"GET":
            sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
            read_all(sock)

    with app("127.9.1.1", serve) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        client = Http2(rig.dial())
        assert client.answer(client.request())[0][":status"] == "204"


def test_grpc_for_an_app_that_speaks_no_http2_is_unavailable(rig: Rig) -> None:
    with app("127.9.1.1", only_http1) as port:
        rig.simple(AppProtocol.AUTO, target=port)
        with grpc.insecure_channel(f"127.0.0.1:{rig.listen()}") as channel:
            with pytest.raises(grpc.RpcError) as failure:
                channel.unary_unary("/test.Echo/Unary")(b"", timeout=10)
            assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
