"""HTTP/1.1 through a waypoint: framing, bodies, pipelining, upgrades, what is refused."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mesh.model.http_policy import HttpAction, HttpPolicy, Operation, PolicyRule
from mesh.model.routing import AppProtocol
from tests.waypoint.rig import Rig, app, is_closed, read_all, read_exactly, read_until

END = b"\r\n\r\n"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as running:
        yield running


def read_head(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(END):
        data += read_exactly(sock, 1)
    return data


def fields(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


def read_message(sock: socket.socket) -> tuple[bytes, bytes]:
    """Head and body of a message with a length or in chunks (then as they are on the wire)."""
    head = read_head(sock)
    found = fields(head)
    if found.get("transfer-encoding") == "chunked":
        return head, read_until_last_chunk(sock)
    return head, read_exactly(sock, int(found.get("content-length", "0")))


def read_until_last_chunk(sock: socket.socket) -> bytes:
    data = b""
    while not data.endswith(END):
        data += read_exactly(sock, 1)
    return data


def mirror(sock: socket.socket) -> None:
    """Answers each request with its own head and body."""
    while True:
        head, body = read_message(sock)
        answer = head + body
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)


def canned(response: bytes) -> object:
    def serve(sock: socket.socket) -> None:
        read_message(sock)
        sock.sendall(response)
        read_all(sock)

    return serve


def ask(sock: socket.socket, request: bytes) -> tuple[bytes, bytes]:
    sock.sendall(request)
    return read_message(sock)


def test_a_request_and_its_answer(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            head, body = ask(sock, b"GET /a/b?c=d HTTP/1.1\r\nHost: web.shop\r\nX-One:  two \r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert body.startswith(b"GET /a/b?c=d HTTP/1.1\r\n")
            assert fields(body)["x-one"] == "two"
            assert fields(body)["host"] == "web.shop"
            assert len(fields(body)["x-request-id"]) == 36


def test_connections_are_kept_on_both_sides(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            for _ in range(5):
                ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    assert len(rig.connects) == 1


def test_clients_never_share_a_connection(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(target=port)
        for who in ("client", "other", "client"):
            with rig.dial(who=who) as sock:
                ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    assert [one["x-ambit-source-identity"].rpartition("/")[2] for one in rig.connects] == ["client", "other"]


def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            one = b"POST /%d HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc"
            sock.sendall(b"".join(one % number for number in range(20)))
            for number in range(20):
                _, body = read_message(sock)
                assert body.startswith(b"POST /%d " % number)
                assert body.endswith(b"abc")


def test_a_body_in_chunks_with_trailers(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            request = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n"
            chunks = b"5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\nContent-Length: 5\r\n\r\n"
            _, body = ask(sock, request + chunks)
            assert body.endswith(b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-sum: 11\r\n\r\n")


@pytest.mark.parametrize("step", [1, 7])
def test_however_the_bytes_are_cut(rig: Rig, step: int) -> None:
    request = b"POST /x HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    with app("127.9.1.1", mirror) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            for at in range(0, len(request), step):
                sock.sendall(request[at : at + step])
            _, body = read_message(sock)
            assert body.endswith(b"3\r\nabc\r\n0\r\n\r\n") or body.count(b"abc") == 0


def test_a_response_in_chunks_with_trailers(rig: Rig) -> None:
    response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"
    with app("127.9.1.1", canned(response)) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            head, body = ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            assert fields(head)["transfer-encoding"] == "chunked"
            assert body == b"3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n"


def test_a_response_without_a_length_ends_with_its_connection(rig: Rig) -> None:
    def serve(sock: socket.socket) -> None:
        read_message(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    with app("127.9.1.1", serve) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            _, body = ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            assert body == b"9\r\nall of it\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "response"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
)
def test_responses_without_a_body(rig: Rig, method: bytes, response: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        while True:
            read_message(sock)
            sock.sendall(response)

    with app("127.9.1.1", serve) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            for _ in range(2):
                sock.sendall(method + b" / HTTP/1.1\r\nHost: web\r\n\r\n")
                head = read_head(sock)
                assert head.split(b" ")[1] == response.split(b" ")[1]
                assert fields(head).get("content-length") == fields(response).get("content-length")


def test_continue_is_asked_of_the_app(rig: Rig) -> None:
    def serve(sock: socket.socket) -> None:
        head = read_head(sock)
        assert fields(head)["expect"] == "100-continue"
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = read_exactly(sock, 4)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)

    with app("127.9.1.1", serve) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            sock.sendall(b"PUT / HTTP/1.1\r\nHost: web\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
            assert read_head(sock).startswith(b"HTTP/1.1 100 Continue\r\n")
            _, body = ask(sock, b"body")
            assert body == b"body"


def test_an_upgrade_makes_the_connection_the_apps_own(rig: Rig) -> None:
    def serve(sock: socket.socket) -> None:
        head = read_head(sock)
        assert fields(head)["upgrade"] == "websocket"
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst")
        while data := sock.recv(100):
            sock.sendall(data.upper())

    with app("127.9.1.1", serve) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            sock.sendall(b"GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
            head = read_head(sock)
            assert head.startswith(b"HTTP/1.1 101 ")
            assert fields(head)["upgrade"] == "websocket"
            assert sorted(read_exactly(sock, 10)) == sorted(b"firstEARLY")
            sock.sendall(b"\x81\x02hi")
            assert read_exactly(sock, 4) == b"\x81\x02HI"


def test_an_upgraded_connection_is_cut_when_policy_comes_to_deny_it(rig: Rig) -> None:
    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := sock.recv(100):
            sock.sendall(data)

    with app("127.9.1.1", serve) as port:
        rig.simple(target=port)
        with rig.dial() as denied, rig.dial() as allowed:
            for sock, path in ((denied, b"/a"), (allowed, b"/b")):
                sock.sendall(
                    b"GET %s HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" % path
                )
                read_head(sock)
            rig.policy(deny("/a"))
            assert is_closed(denied)
            allowed.sendall(b"still")
            assert read_exactly(allowed, 5) == b"still"
    (record,) = (each for each in rig.witness.requests if each.target == "/a")
    assert (record.flags, "no" in record.reason) == ("RBAC", True)


def test_requests_under_way_are_cut_when_policy_comes_to_deny_them(rig: Rig) -> None:
    def serve(sock: socket.socket) -> None:
        if b"/begun" in read_head(sock):
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        read_all(sock)

    with app("127.9.1.1", serve) as port:
        rig.simple(target=port)
        with rig.dial() as begun, rig.dial() as waiting, rig.dial() as allowed:
            for sock, path in ((begun, b"/begun"), (waiting, b"/waiting"), (allowed, b"/allowed")):
                sock.sendall(b"GET %s HTTP/1.1\r\nHost: web\r\n\r\n" % path)
            read_until(begun, b"a\r\n")
            wait_for(lambda: len(rig.connects) == 3)
            rig.policy(deny("/begun", "/waiting"))
            assert is_closed(begun)
            assert read_head(waiting).startswith(b"HTTP/1.1 403 ")
            allowed.settimeout(0.5)
            with pytest.raises(TimeoutError):
                allowed.recv(1)


def deny(*paths: str) -> HttpPolicy:
    return HttpPolicy("shop", "no", HttpAction.DENY, (PolicyRule(operations=(Operation(paths=paths),)),))


def test_large_bodies_both_ways(rig: Rig) -> None:
    size = 8 << 20

    def serve(sock: socket.socket) -> None:
        head = read_head(sock)
        left = int(fields(head)["content-length"])
        while left:
            left -= len(sock.recv(min(left, 1 << 20)))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        sock.sendall(b"y" * size)

    with app("127.9.1.1", serve) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
            _, body = read_message(sock)
            assert body == b"y" * size


def test_the_hop_keeps_its_fields_to_itself(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            request = (
                b"GET / HTTP/1.1\r\nHost: web\r\nConnection: keep-alive, X-Private\r\nX-Private: 1\r\n"
                b"Keep-Alive: 5\r\nTE: trailers\r\nX-Forwarded-Client-Cert: URI=spiffe://forged\r\n\r\n"
            )
            _, body = ask(sock, request)
            assert {"x-private", "keep-alive", "x-forwarded-client-cert"}.isdisjoint(fields(body))
            assert fields(body)["te"] == "trailers"


def test_trailers_say_nothing_that_was_to_be_said_before(rig: Rig) -> None:
    """Some apps take trailers for headers: nobody has judged these."""
    with app("127.9.1.1", mirror) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            head = b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
            trailers = b"Authorization: a\r\nX-Forwarded-Client-Cert: b\r\nX_Forwarded_For: c\r\nX-Sum: d\r\n\r\n"
            _, body = ask(sock, head + trailers)
            assert body.endswith(b"\r\n\r\n0\r\nx-sum: d\r\n\r\n")


def test_a_client_certificate_header_on_request(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(target=port, client_certificate_header=True)
        with rig.dial() as sock:
            _, body = ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-Client-Cert: forged\r\n\r\n")
            uri = "spiffe://cluster.local/ns/shop/sa/"
            assert fields(body)["x-forwarded-client-cert"] == f"By={uri}waypoint;URI={uri}client"


def test_an_app_that_is_away_is_a_503_with_the_reason(rig: Rig) -> None:
    rig.simple(target=9)
    with rig.dial() as sock:
        head, body = ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"none of the 1 healthy endpoints" in body or b"answered 503" in body


def test_an_app_that_breaks_off_before_its_response_is_a_503(rig: Rig) -> None:
    with app("127.9.1.1", lambda sock: (read_message(sock), None)[1]) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            head, _ = ask(sock, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\n\r\nx")
            assert head.startswith(b"HTTP/1.1 503 ")
    assert rig.witness.requests[0].flags == "UC"


def test_an_app_that_breaks_off_within_its_response_breaks_the_clients(rig: Rig) -> None:
    with app("127.9.1.1", canned_then_gone(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")) as port:
        rig.simple(target=port)
        with rig.dial() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            data = b""
            try:
                while piece := sock.recv(100):
                    data += piece
            except ConnectionResetError:
                pass
            assert not data.endswith(b"0\r\n\r\n")
            assert len(data.partition(END)[2]) < 10


def canned_then_gone(response: bytes) -> object:
    def serve(sock: socket.socket) -> None:
        read_message(sock)
        sock.sendall(response)

    return serve


def test_the_app_learns_that_its_client_has_gone(rig: Rig) -> None:
    seen: list[str] = []

    def serve(sock: socket.socket) -> None:
        read_message(sock)
        seen.append("request")
        try:
            seen.append("closed" if sock.recv(1) == b"" else "data")
        except ConnectionResetError:
            seen.append("closed")

    with app("127.9.1.1", serve) as port:
        rig.simple(target=port)
        sock = rig.dial()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
        wait_for(lambda: seen == ["request"])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        wait_for(lambda: seen == ["request", "closed"])


def wait_for(condition: object, patience: float = 10.0) -> None:
    import time

    deadline = time.monotonic() + patience
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what is refused: each of these is read differently by some server


HOST = b"Host: web\r\n"
SMUGGLING = {
    "length and chunks": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "two equal lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +4\r\n\r\nabcd",
    "a hexadecimal length": b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 0x4\r\n\r\nabcd",
    "a length in other digits": "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: ٤\r\n\r\nabcd".encode(),
    "chunked twice": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunked and identity": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "another coding": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "an odd space before chunked": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded field": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\r\n c\r\n\r\n",
    "a folded first field": b"GET / HTTP/1.1\r\n Host: web\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: web\n\n",
    "a bare line feed in a field": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\nTransfer-Encoding: chunked\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\rX-B: c\r\n\r\n",
    "a zero octet": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: b\0c\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "a field without a name": b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "a field without a colon": b"GET / HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n",
    "a target with a space": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "a tab in the request line": b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /\r\n" + HOST + b"\r\n",
    "another version": b"GET / HTTP/3.0\r\n" + HOST + b"\r\n",
    "a chunk size that is none": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a chunk size with a prefix": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a signed chunk size": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "a space after a chunk size": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
    "a chunk that is too long": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "a chunk line with a bare line feed": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "a chunk extension with a line feed": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\nc\r\nabc\r\n0\r\n\r\n",
    "a huge chunk size": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc",
    "a head beyond all measure": b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 62_000 + b"\r\n\r\n",
    "a length under an alias": b"POST / HTTP/1.1\r\n" + HOST + b"Content_Length: 4\r\n\r\nabcd",
    "chunks under an alias": b"POST / HTTP/1.1\r\n" + HOST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a certificate under an alias": b"GET / HTTP/1.1\r\n" + HOST + b"X_Forwarded-Client_Cert: URI=spiffe://x\r\n\r\n",
    "too many fields": b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 200 + b"\r\n",
}


@pytest.mark.parametrize("case", SMUGGLING)
def test_ambiguous_messages_are_refused(rig: Rig, case: str) -> None:
    got: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        got.append(read_head(sock))

    with app("127.9.1.1", serve) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        with rig.dial() as sock:
            sock.sendall(SMUGGLING[case])
            answer = read_all(sock)
    assert answer.split(b" ")[1] in (b"400", b"431", b"501", b"505"), answer
    assert answer.count(b"HTTP/1.1 ") == 1, "the connection must end with it"
    assert not any(b"content-length" in head and b"transfer-encoding" in head for head in got)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /a#b", b"400"),
        (b"CONNECT web:80", b"501"),
        (b"CONNECT /a", b"501"),
        (b"GET http://a@web/", b"400"),
        (b"GET *", b"400"),
    ],
)
def test_targets_that_are_none_are_refused(rig: Rig, line: bytes, status: bytes) -> None:
    rig.simple(AppProtocol.HTTP, target=9)
    with rig.dial() as sock:
        head, _ = ask(sock, line + b" HTTP/1.1\r\nHost: web\r\n\r\n")
        assert head.split(b" ")[1] == status


def test_a_client_that_sends_nonsense_is_told_and_cut(rig: Rig) -> None:
    rig.simple(AppProtocol.HTTP, target=9)
    with rig.dial() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nbad line\r\n\r\n")
        assert read_until(sock, b"\r\n").startswith(b"HTTP/1.1 400 ")
        read_all(sock)
        assert is_closed(sock)
