"""What filters make of requests and responses: Gateway API's conformance cases, with Location and path asserted."""

from __future__ import annotations

import pytest

from mesh.model.routing import Filters, HeaderChange, HttpRule, Mirror, PathChange, Redirect, Rewrite
from tests.waypoint.routing.make import backend, forwarded, get, http_route, match, outcome, port, replied, rule, to
from waypoint.routing.request import Headers

CHANGES = {
    "set": HeaderChange(set=(("X-Header-Set", "set-overwrites-values"),)),
    "add": HeaderChange(add=(("X-Header-Add", "add-appends-values"),)),
    "remove": HeaderChange(remove=("X-Header-Remove",)),
    "multiple": HeaderChange(
        set=(("X-Header-Set-1", "s1"), ("X-Header-Set-2", "s2")),
        add=(("X-Header-Add-1", "a1"), ("X-Header-Add-2", "a2"), ("X-Header-Add-3", "a3")),
        remove=("X-Header-Remove-1", "X-Header-Remove-2"),
    ),
    "case": HeaderChange(
        set=(("X-Header-Set", "s"),), add=(("X-Header-Add", "a"),), remove=("x-header-REMOVE",)
    ),
}  # fmt: skip
HEADER_CASES: list[tuple[str, Headers, Headers]] = [
    ("set", (("host-x", "1"),), (("host-x", "1"), ("x-header-set", "set-overwrites-values"))),
    ("set", (("x-header-set", "old"), ("x-header-set", "older")), (("x-header-set", "set-overwrites-values"),)),
    ("add", (), (("x-header-add", "add-appends-values"),)),
    ("add", (("x-header-add", "old"),), (("x-header-add", "old"), ("x-header-add", "add-appends-values"))),
    ("remove", (("x-header-remove", "1"), ("x-header-remove", "2"), ("kept", "k")), (("kept", "k"),)),
    (
        "multiple",
        (("x-header-set-2", "old"), ("x-header-add-2", "old"), ("x-header-remove-2", "old"), ("kept", "k")),
        (("x-header-add-2", "old"), ("kept", "k"), ("x-header-set-1", "s1"), ("x-header-set-2", "s2"),
         ("x-header-add-1", "a1"), ("x-header-add-2", "a2"), ("x-header-add-3", "a3")),
    ),
    ("case", (("x-header-set", "o"), ("x-header-remove", "o")), (("x-header-set", "s"), ("x-header-add", "a"))),
]  # fmt: skip


def of_rule(filters: Filters, path: str = "/") -> HttpRule:
    return rule(match(path), filters=filters)


def of_backend(filters: Filters, path: str = "/") -> HttpRule:
    return rule(match(path), backends=(backend("v1", filters=filters),))


@pytest.mark.parametrize("where", [of_rule, of_backend])
@pytest.mark.parametrize(("name", "before", "after"), HEADER_CASES)
def test_headers_of_requests_and_responses(where: object, name: str, before: Headers, after: Headers) -> None:
    assert callable(where)
    filters = Filters(request_headers=CHANGES[name], response_headers=CHANGES[name])
    request = get()
    sent = forwarded(port(http_route(where(filters))), type(request)("GET", "http", "echo", "/", "", before))
    assert sent.request.headers == after
    assert sent.answer(before) == after


def test_filters_of_the_rule_come_before_those_of_the_backend() -> None:
    both = backend("v1", filters=Filters(request_headers=HeaderChange(add=(("x", "backend"),))))
    filters = Filters(request_headers=HeaderChange(set=(("x", "rule"),)))
    sent = forwarded(port(http_route(rule(filters=filters, backends=(both,)))), get(x="client"))
    assert sent.request.headers == (("x", "rule"), ("x", "backend"))


def test_each_backend_has_its_own_filters() -> None:
    def named(name: str) -> object:
        return backend(name, filters=Filters(request_headers=HeaderChange(set=(("backend", name),))))

    table = port(http_route(rule(backends=(named("a"), named("b")))))
    for chance, name in ((0.2, "a"), (0.7, "b")):
        sent = forwarded(table, get(), chance)
        assert (sent.to, sent.request.headers) == (to(name), (("backend", name),))


@pytest.mark.parametrize(
    "change",
    [
        *(HeaderChange(set=((name, "x"),)) for name in ("Host", ":path", "Transfer-Encoding", "content-length", "TE")),
        *(HeaderChange(remove=(name,)) for name in ("connection", "upgrade", "host", "keep-alive", "trailer")),
        HeaderChange(add=(("x", "a\r\nset-cookie: b"),)),
        HeaderChange(add=(("x", "a\0"),)),
        HeaderChange(set=(("bad name", "x"),)),
        HeaderChange(set=(("", "x"),)),
    ],
)
@pytest.mark.parametrize("field", ["request_headers", "response_headers"])
def test_what_would_break_the_framing_is_an_error_of_the_rule(change: HeaderChange, field: str) -> None:
    answer = replied(port(http_route(of_rule(Filters(**{field: change})))), get())
    assert answer.status == 500
    assert "filter" in answer.reason


# --- rewrites


@pytest.mark.parametrize(
    ("path", "prefix", "replacement", "expected"),
    [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo/bar", "/foo", "/", "/bar"),
        ("/any/path", "/", "/xyz", "/xyz/any/path"),
        ("/prefix/one/two", "/prefix/one", "/one", "/one/two"),
        ("/strip-prefix/three", "/strip-prefix", "/", "/three"),
        ("/strip-prefix", "/strip-prefix", "/", "/"),
        ("/prefix/rewrite-path-and-modify-headers/one", "/prefix/rewrite-path-and-modify-headers", "/prefix",
         "/prefix/one"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", [of_rule, of_backend])
def test_replaced_prefixes(where: object, path: str, prefix: str, replacement: str, expected: str) -> None:
    assert callable(where)
    table = port(http_route(where(Filters(rewrite=Rewrite(path=PathChange(prefix=replacement))), prefix)))
    assert forwarded(table, get(path + "?a=b")).request.target == expected + "?a=b"


def test_a_prefix_is_that_of_the_match_that_was_taken() -> None:
    filters = Filters(rewrite=Rewrite(path=PathChange(prefix="/new")))
    table = port(http_route(rule(match("/a"), match("/longer/b"), match("=/exact/c"), filters=filters)))
    targets = [forwarded(table, get(path)).request.path for path in ("/a/x", "/longer/b/x", "/exact/c")]
    assert targets == ["/new/x", "/new/x", "/new"]


def test_a_prefix_of_an_expression_is_an_error() -> None:
    filters = Filters(rewrite=Rewrite(path=PathChange(prefix="/new")))
    assert outcome(port(http_route(rule(match("~/a.*"), filters=filters))), get("/ab")) == 500


def test_whole_path_and_hostname_are_rewritten_with_headers() -> None:
    change = HeaderChange(set=(("x-set", "s"),), add=(("x-append", "2"),), remove=("x-remove",))
    rewrite = Rewrite(hostname="one.example.org", path=PathChange(full="/one"))
    sent = forwarded(
        port(http_route(of_rule(Filters(request_headers=change, rewrite=rewrite), "/full/one"))),
        get("/full/one/two?q", x_append="1", x_remove="r", x_set="old"),
    ).request
    assert (sent.authority, sent.target) == ("one.example.org", "/one?q")
    assert sent.headers == (("x-append", "1"), ("x-set", "s"), ("x-append", "2"))


def test_a_rewrite_at_the_backend_wins() -> None:
    of_it = backend("v1", filters=Filters(rewrite=Rewrite(hostname="b.example", path=PathChange(prefix="/backend"))))
    filters = Filters(rewrite=Rewrite(hostname="r.example", path=PathChange(prefix="/rule")))
    sent = forwarded(port(http_route(rule(match("/a"), filters=filters, backends=(of_it,)))), get("/a/x")).request
    assert (sent.authority, sent.path) == ("b.example", "/backend/x")


@pytest.mark.parametrize("rewrite", [
    Rewrite(path=PathChange(full="/a\\b")), Rewrite(path=PathChange(full="/a?b")), Rewrite(hostname="a b"),
    Rewrite(hostname="a\r\nb"), Rewrite(path=PathChange(prefix="/%00")),
])  # fmt: skip
def test_what_is_no_path_or_host_is_an_error(rewrite: Rewrite) -> None:
    assert outcome(port(http_route(of_rule(Filters(rewrite=rewrite)))), get()) == 500


# --- redirects


def location(redirect: Redirect, target: str, *, path: str = "/", dialled: int = 80, authority: str = "echo") -> str:
    table = port(http_route(rule(match(path), to="", filters=Filters(redirect=redirect))), port=dialled)
    answer = replied(table, get(target, authority=authority))
    assert answer.status == redirect.status
    return dict(answer.headers)["location"]


@pytest.mark.parametrize(
    ("dialled", "redirect", "expected"),
    [
        (80, Redirect(hostname="example.org"), "http://example.org/p"),
        (80, Redirect(hostname="example.org", status=301), "http://example.org/p"),
        (80, Redirect(hostname="example.org", port=80), "http://example.org/p"),
        (80, Redirect(hostname="example.org", port=8080), "http://example.org:8080/p"),
        (80, Redirect(hostname="example.org", scheme="https"), "https://example.org/p"),
        (80, Redirect(hostname="example.org", scheme="https", port=443), "https://example.org/p"),
        (80, Redirect(hostname="example.org", scheme="https", port=8443), "https://example.org:8443/p"),
        (8080, Redirect(hostname="example.org"), "http://example.org:8080/p"),
        (8080, Redirect(hostname="example.org", port=80), "http://example.org/p"),
        (8080, Redirect(hostname="example.org", scheme="https"), "https://example.org/p"),
        (8080, Redirect(scheme="http", hostname="example.org"), "http://example.org/p"),
        (443, Redirect(scheme="http", port=443), "http://echo:443/p"),
        (80, Redirect(port=8083), "http://echo:8083/p"),
        (80, Redirect(port=8083, hostname="example.org", status=302), "http://example.org:8083/p"),
        (80, Redirect(port=8083, status=301), "http://echo:8083/p"),
        (80, Redirect(scheme="https"), "https://echo/p"),
        (80, Redirect(scheme="https", status=301), "https://echo/p"),
        *((80, Redirect(status=status), "http://echo/p") for status in (301, 302, 303, 307, 308)),
    ],
)
def test_scheme_host_port_and_status(dialled: int, redirect: Redirect, expected: str) -> None:
    assert location(redirect, "/p", dialled=dialled) == expected


@pytest.mark.parametrize(
    ("path", "redirect", "target", "expected"),
    [
        ("/original-prefix", Redirect(path=PathChange(prefix="/replacement-prefix")), "/original-prefix/lemon",
         "http://echo/replacement-prefix/lemon"),
        ("/full", Redirect(path=PathChange(full="/full-path-replacement")), "/full/path/original",
         "http://echo/full-path-replacement"),
        ("/host", Redirect(hostname="example.org", path=PathChange(prefix="/new")), "/host/lemon",
         "http://example.org/new/lemon"),
        ("/s", Redirect(path=PathChange(prefix="/new"), status=301), "/s/lemon", "http://echo/new/lemon"),
        ("/f", Redirect(hostname="example.org", path=PathChange(full="/r")), "/f/lemon", "http://example.org/r"),
        ("/f", Redirect(path=PathChange(full="/r"), status=301), "/f/lemon?a=b", "http://echo/r?a=b"),
        ("/", Redirect(path=PathChange(prefix="")), "/x", "http://echo/x"),
    ],
)  # fmt: skip
def test_redirected_paths(path: str, redirect: Redirect, target: str, expected: str) -> None:
    assert location(redirect, target, path=path) == expected


@pytest.mark.parametrize(
    ("authority", "expected"),
    [("echo:8080", "http://echo/p"), ("[fd00::1]:80", "http://[fd00::1]/p"), ("[fd00::1]", "http://[fd00::1]/p"),
     ("", "/p")],
)  # fmt: skip
def test_the_port_of_host_does_not_count(authority: str, expected: str) -> None:
    assert location(Redirect(), "/p", authority=authority) == expected


def test_a_redirect_at_the_backend() -> None:
    at_backend = backend("v1", filters=Filters(redirect=Redirect(hostname="b.example")))
    answer = replied(port(http_route(rule(backends=(at_backend,)))), get("/x"))
    assert (answer.status, answer.headers) == (302, (("location", "http://b.example/x"),))


def test_response_headers_also_change_a_redirect() -> None:
    filters = Filters(redirect=Redirect(), response_headers=HeaderChange(set=(("x", "y"),)))
    assert dict(replied(port(http_route(rule(filters=filters))), get()).headers)["x"] == "y"


@pytest.mark.parametrize("redirect", [Redirect(status=200), Redirect(status=304), Redirect(hostname="a/b")])
def test_a_redirect_that_is_none_is_an_error(redirect: Redirect) -> None:
    assert replied(port(http_route(rule(filters=Filters(redirect=redirect)))), get()).status == 500


# --- mirrors


def mirrored(*mirrors: Mirror, chances: tuple[float, ...] = (0.5,)) -> list[str]:
    table = port(http_route(rule(filters=Filters(mirrors=mirrors))))
    return [str(copy.to.service) for chance in chances for copy in forwarded(table, get(), chance).mirrors]


def test_a_mirror_gets_the_request_with_the_changes_of_the_rule() -> None:
    own = backend("v1", filters=Filters(request_headers=HeaderChange(set=(("only", "backend"),))))
    filters = Filters(request_headers=HeaderChange(set=(("x", "rule"),)), mirrors=(Mirror(backend("m")),))
    sent = forwarded(port(http_route(rule(filters=filters, backends=(own,)))), get("/path?q"))
    assert sent.to == to("v1")
    (copy,) = sent.mirrors
    assert (copy.to, copy.request.target, copy.request.headers) == (to("m"), "/path?q", (("x", "rule"),))


SHARES = [((20, 100),), ((25, 100), (50, 100)), ((35, 100),), ((1, 3), (0, 100)), ((100, 100),)]


@pytest.mark.parametrize("shares", SHARES)
def test_mirrors_take_their_share_of_evenly_spread_chances(shares: tuple[tuple[int, int], ...]) -> None:
    mirrors = tuple(Mirror(backend(f"m{at}"), *share) for at, share in enumerate(shares))
    rounds = 6000
    seen = mirrored(*mirrors, chances=tuple((at + 0.5) / rounds for at in range(rounds)))
    for at, (numerator, denominator) in enumerate(shares):
        assert seen.count(f"m{at}") == pytest.approx(rounds * numerator / denominator, abs=2)


def test_a_mirror_without_a_backend_changes_nothing() -> None:
    assert mirrored(Mirror(backend("m", error="no such service")), Mirror(backend("n"))) == ["n"]


def test_a_filter_that_cannot_be_applied_is_said() -> None:
    answer = replied(port(http_route(rule(filters=Filters(error="ExtensionRef x/y is unknown")))), get())
    assert (answer.status, answer.reason) == (500, "ExtensionRef x/y is unknown")
