"""Routes, filters, timeouts, retries, mirrors and policies, as a client and the apps see them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mesh.model.http_policy import Condition, HttpAction, HttpPolicy, Operation, PolicyRule
from mesh.model.routing import (
    AppProtocol,
    Backend,
    Filters,
    Gateway,
    HeaderChange,
    HttpMatch,
    HttpRule,
    Mirror,
    PathChange,
    PathMatch,
    PortRouting,
    Redirect,
    Retry,
    Rewrite,
    Route,
    ServiceRouting,
    TcpRule,
    Timeouts,
    TlsRule,
)
from tests.waypoint.rig import VIP, Rig, app, client_hello, is_closed, key, read_all, read_exactly
from tests.waypoint.test_http1 import ask, fields, mirror, read_message, wait_for
from waypoint.exchange import mirror as mirror_module
from waypoint.serve import sniffer

GET = b"GET %s HTTP/1.1\r\nHost: web\r\n\r\n"
SAY_NAME = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as running:
        yield running


def route(*rules: HttpRule) -> Route:
    return Route("shop", "r", http=rules)


def backend(name: str = "web", **more: object) -> Backend:
    return Backend(service=key(name), port=80, **more)  # type: ignore[arg-type]


def prefix(value: str) -> tuple[HttpMatch, ...]:
    return (HttpMatch(path=PathMatch(value=value)),)


def named(name: bytes) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        while True:
            read_message(sock)
            sock.sendall(SAY_NAME % (len(name), name))

    return serve


def scripted(*answers: bytes | None) -> tuple[Callable[[socket.socket], None], list[bytes]]:
    """A server that gives these answers to the requests that come, None being none at all; and the requests."""
    left, seen, lock = list(answers), [], threading.Lock()

    def serve(sock: socket.socket) -> None:
        while True:
            head, body = read_message(sock)
            with lock:
                seen.append(head + body)
                answer = left.pop(0)
            if answer is None:
                return
            sock.sendall(answer)

    return serve, seen


def two_services(rig: Rig, one: int, two: int, *rules: HttpRule) -> None:
    rig.service("web", VIP, {80: one})
    rig.service("other", "10.96.0.2", {80: two})
    rig.endpoint(1, {"web": {80: one}})
    rig.endpoint(2, {"other": {80: two}})
    rig.publish(
        Gateway("shop/waypoint"),
        ServiceRouting("shop/waypoint", key("web"), (PortRouting(80, AppProtocol.HTTP, (route(*rules),)),)),
    )


def test_paths_choose_backends_and_nothing_else_is_served(rig: Rig) -> None:
    with app("127.9.1.1", named(b"one")) as one, app("127.9.1.2", named(b"two")) as two:
        two_services(
            rig, one, two,
            HttpRule(prefix("/one"), backends=(backend(),)), HttpRule(prefix("/two"), backends=(backend("other"),)),
        )  # fmt: skip
        with rig.dial() as sock:
            assert ask(sock, GET % b"/one/x")[1] == b"one"
            assert ask(sock, GET % b"/two")[1] == b"two"
            assert ask(sock, GET % b"/three")[0].startswith(b"HTTP/1.1 404 ")


def test_redirect_rewrite_and_header_filters(rig: Rig) -> None:
    change = HeaderChange(set=(("x-set", "1"),), remove=("x-gone",))
    with app("127.9.1.1", mirror) as port:
        rules = (
            HttpRule(prefix("/away"), Filters(redirect=Redirect(hostname="example.org", status=301))),
            HttpRule(
                prefix("/old"),
                Filters(
                    rewrite=Rewrite(path=PathChange(prefix="/new")), request_headers=change, response_headers=change
                ),
                (backend(),),
            ),
        )
        rig.simple(AppProtocol.HTTP, target=port, routes=(route(*rules),))
        with rig.dial() as sock:
            head, _ = ask(sock, GET % b"/away/x")
            assert head.startswith(b"HTTP/1.1 301 ")
            assert fields(head)["location"] == "http://example.org/away/x"
            head, body = ask(sock, b"GET /old/a HTTP/1.1\r\nHost: web\r\nX-Gone: 1\r\n\r\n")
            assert body.startswith(b"GET /new/a ")
            assert fields(body)["x-set"] == fields(head)["x-set"] == "1"
            assert "x-gone" not in fields(body)


OK, BAD = SAY_NAME % (2, b"ok"), b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answers", "status", "attempts"),
    [((BAD, BAD, OK), b"200", 3), ((BAD,) * 4, b"500", 4), ((None, OK), b"200", 2)],
)
def test_retries_by_status(rig: Rig, answers: tuple[bytes | None, ...], status: bytes, attempts: int) -> None:
    serve, seen = scripted(*answers)
    with app("127.9.1.1", serve) as port:
        rule = HttpRule(backends=(backend(),), retry=Retry(codes=(500,), attempts=3, backoff=0.001))
        rig.simple(AppProtocol.HTTP, target=port, routes=(route(rule),))
        with rig.dial() as sock:
            request = b"PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody"
            assert ask(sock, request)[0].split(b" ")[1] == status
    assert len(seen) == attempts
    assert all(one.endswith(b"body") for one in seen)


def test_what_may_have_been_carried_out_is_never_repeated(rig: Rig) -> None:
    serve, seen = scripted(None, OK)
    with app("127.9.1.1", serve) as port:
        rule = HttpRule(backends=(backend(),), retry=Retry(codes=(500,), attempts=3, backoff=0.001))
        rig.simple(AppProtocol.HTTP, target=port, routes=(route(rule),))
        with rig.dial() as sock:
            head, _ = ask(sock, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
            assert head.split(b" ")[1] == b"503"
    assert len(seen) == 1


def test_an_endpoint_that_is_down_is_stepped_over(rig: Rig) -> None:
    with app("127.9.1.1", named(b"one")) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        rig.endpoint(2, {"web": {80: 9}})
        with rig.dial() as sock:
            for _ in range(20):
                head, _ = ask(sock, b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1\r\n\r\nx")
                assert head.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("timeouts", [Timeouts(request=0.2), Timeouts(backend_request=0.2)])
def test_timeouts(rig: Rig, timeouts: Timeouts) -> None:
    with app("127.9.1.1", lambda sock: sock.recv(1) and sock.recv(1 << 20) and sock.recv(1)) as port:
        rig.simple(AppProtocol.HTTP, target=port, routes=(route(HttpRule(backends=(backend(),), timeouts=timeouts)),))
        with rig.dial() as sock:
            assert ask(sock, GET % b"/")[0].startswith(b"HTTP/1.1 504 ")
    assert rig.witness.requests[0].flags == "UT"


def test_a_mirror_gets_a_copy_and_changes_nothing(rig: Rig) -> None:
    serve, seen = scripted(BAD)
    with app("127.9.1.1", named(b"one")) as one, app("127.9.1.2", serve) as two:
        rule = HttpRule(filters=Filters(mirrors=(Mirror(backend("other")),)), backends=(backend(),))
        two_services(rig, one, two, rule)
        with rig.dial() as sock:
            request = b"POST /m HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody"
            assert ask(sock, request)[1] == b"one"
        wait_for(lambda: len(seen) == 1)
        assert seen[0].startswith(b"POST /m ")
        assert seen[0].endswith(b"body")


def test_a_mirror_hears_nobodys_word_about_the_client(rig: Rig) -> None:
    serve, seen = scripted(BAD)
    with app("127.9.1.1", mirror) as one, app("127.9.1.2", serve) as two:
        rule = HttpRule(filters=Filters(mirrors=(Mirror(backend("other")),)), backends=(backend(),))
        two_services(rig, one, two, rule)
        with rig.dial() as sock:
            request = b"GET /m HTTP/1.1\r\nHost: web\r\nX-Forwarded-Client-Cert: URI=spiffe://forged\r\n\r\n"
            _, answered = ask(sock, request)
        wait_for(lambda: len(seen) == 1)
        assert "x-forwarded-client-cert" not in fields(seen[0])
        assert fields(seen[0])["x-request-id"] == fields(answered)["x-request-id"]


def test_a_mirror_is_left_alone_with_no_half_request(rig: Rig) -> None:
    """A client that leaves in the middle of its body must not keep connections of the mirror for ever."""
    ended: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            read_all(sock)
        ended.append(b"")

    with app("127.9.1.1", serve) as one, app("127.9.1.2", serve) as two:
        rule = HttpRule(filters=Filters(mirrors=(Mirror(backend("other")),)), backends=(backend(),))
        two_services(rig, one, two, rule)
        with rig.dial() as sock:
            sock.sendall(b"POST /m HTTP/1.1\r\nHost: web\r\nContent-Length: 400\r\n\r\nbody")
            wait_for(lambda: len(rig.connects) == 2)
        wait_for(lambda: len(ended) == 2)


def test_a_mirror_that_does_not_answer_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "PATIENCE", 0.1)
    ended: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionResetError):
            read_all(sock)
        ended.append(b"")

    with app("127.9.1.1", named(b"one")) as one, app("127.9.1.2", serve) as two:
        rule = HttpRule(filters=Filters(mirrors=(Mirror(backend("other")),)), backends=(backend(),))
        two_services(rig, one, two, rule)
        with rig.dial() as sock:
            assert ask(sock, GET % b"/m")[1] == b"one"
            wait_for(lambda: len(ended) == 1)


def test_a_policy_sees_the_path_that_the_app_gets(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(AppProtocol.HTTP, target=port)
        deny = PolicyRule(operations=(Operation(paths=("/admin*",)),))
        rig.policy(HttpPolicy("shop", "no-admin", HttpAction.DENY, (deny,)))
        with rig.dial() as sock:
            for path in (
                b"/admin",
                b"//admin",
                b"/./admin",
                b"/x/../admin",
                b"/%61dmin",
                b"/admin/x",
                b"/x/%2e%2e/admin",
            ):
                head, _ = ask(sock, GET % path)
                assert head.split(b" ")[1] in (b"403", b"400"), path
            assert ask(sock, GET % b"/public")[0].startswith(b"HTTP/1.1 200 ")


def test_a_policy_for_paths_is_not_passed_by_what_is_no_http(rig: Rig) -> None:
    with app("127.9.1.1", lambda sock: sock.sendall(sock.recv(100))) as port:
        rig.simple(AppProtocol.AUTO, target=port)
        deny = PolicyRule(operations=(Operation(paths=("/admin*",)),))
        rig.policy(HttpPolicy("shop", "no-admin", HttpAction.DENY, (deny,)))
        with rig.dial() as sock:
            sock.sendall(b"\tGET /admin HTTP/1.1\r\nHost: web\r\n\r\n")
            assert is_closed(sock)


def saying(word: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(word)


def test_tls_goes_by_its_server_name(rig: Rig) -> None:
    with (
        app("127.9.1.1", saying(b"one")) as one,
        app("127.9.1.2", saying(b"two")) as two,
    ):
        rig.service("web", VIP, {443: one})
        rig.service("other", "10.96.0.2", {80: two})
        rig.endpoint(1, {"web": {443: one}})
        rig.endpoint(2, {"other": {80: two}})
        rules = (
            TlsRule(("a.example",), (Backend(service=key("web"), port=443),)),
            TlsRule(("*.b.example",), (backend("other"),)),
        )
        routing = PortRouting(443, AppProtocol.TLS, (Route("shop", "t", tls=rules),))
        rig.publish(Gateway("shop/waypoint"), ServiceRouting("shop/waypoint", key("web"), (routing,)))
        for name, expected in (("a.example", b"one"), ("x.b.example", b"two")):
            with rig.dial(f"{VIP}:443") as sock:
                hello = client_hello(name)
                sock.sendall(hello[:50])
                sock.sendall(hello[50:])
                assert read_exactly(sock, 3) == expected
        with rig.dial(f"{VIP}:443") as sock:
            sock.sendall(client_hello("c.example"))
            assert is_closed(sock)


def test_who_dribbles_a_hello_does_not_get_round_its_server_name(rig: Rig) -> None:
    """Without its name it would be taken for TCP, which the policy lets pass."""
    deny = PolicyRule(conditions=(Condition("connection.sni", ("secret.example",)),))
    with app("127.9.1.1", saying(b"in")) as port:
        rig.simple(AppProtocol.AUTO, target=port)
        rig.policy(HttpPolicy("shop", "p", HttpAction.DENY, (deny,)))
        for name, size in (
            ("SECRET.example", 1),
            ("secret.example", 5),
            ("secret.example", 60),
            ("secret.example.", 1),
        ):
            with rig.dial() as sock:
                hello = client_hello(name)
                sock.sendall(hello[:size])
                time.sleep(sniffer.PATIENCE + 0.3)
                with contextlib.suppress(ConnectionError):
                    sock.sendall(hello[size:])
                assert is_closed(sock)
        with rig.dial() as sock:
            sock.sendall(client_hello("open.example"))
            assert read_exactly(sock, 2) == b"in"


def test_a_server_name_is_denied_in_any_spelling(rig: Rig) -> None:
    deny = PolicyRule(conditions=(Condition("connection.sni", ("secret.example",)),))
    with app("127.9.1.1", saying(b"in")) as port:
        rig.simple(AppProtocol.AUTO, target=port)
        rig.policy(HttpPolicy("shop", "p", HttpAction.DENY, (deny,)))
        for name in ("secret.example", "SECRET.Example", "secret.example."):
            with rig.dial() as sock:
                sock.sendall(client_hello(name))
                assert is_closed(sock)


def test_tcp_routes_by_weight(rig: Rig) -> None:
    with (
        app("127.9.1.1", saying(b"one")) as one,
        app("127.9.1.2", saying(b"two")) as two,
    ):
        rig.service("web", VIP, {80: one})
        rig.service("other", "10.96.0.2", {80: two})
        rig.endpoint(1, {"web": {80: one}})
        rig.endpoint(2, {"other": {80: two}})
        rule = TcpRule((backend(weight=0), backend("other", weight=1)))
        routing = PortRouting(80, AppProtocol.TCP, (Route("shop", "t", tcp=(rule,)),))
        rig.publish(Gateway("shop/waypoint"), ServiceRouting("shop/waypoint", key("web"), (routing,)))
        with rig.dial() as sock:
            sock.sendall(b"hello")
            assert read_exactly(sock, 3) == b"two"


def test_a_pod_address_is_served_when_it_is_bound(rig: Rig) -> None:
    with app("127.9.1.1", mirror) as port:
        rig.simple(AppProtocol.HTTP, target=port, workloads=True)
        with rig.dial(f"127.9.1.1:{port}") as sock:
            assert is_closed(sock)
    assert "not bound" in rig.witness.refusals[0]
