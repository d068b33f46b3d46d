"""One reading of a request's target: canonical, or refused with the reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.policy.http.path import BadPath, readings
from waypoint.routing.paths import BadTarget, Target, normalise, read_target

CANONICAL = {
    "/": "/",
    "//": "/",
    "/a//b///c": "/a/b/c",
    "//a.example/b": "/a.example/b",
    "/a/": "/a/",
    "/a//": "/a/",
    "/./": "/",
    "/.": "/",
    "/a/.": "/a/",
    "/a/./b": "/a/b",
    "/a/../b": "/b",
    "/a//../b": "/a/b",
    "/a/..//b": "/b",
    "/..//": "/",
    "/a/.//": "/a/",
    "/a/b//..": "/a/b/",
    "/a/..": "/",
    "/a/b/..": "/a/",
    "/a/b/../": "/a/",
    "/../../a": "/a",
    "/..": "/",
    "/a/...": "/a/...",
    "/.well-known/x": "/.well-known/x",
    "/..a/.b": "/..a/.b",
    "/%2e%2e/a": "/a",
    "/a/%2E./b": "/b",
    "/a/%2e/b": "/a/b",
    "/%61dmin": "/admin",
    "/%7Euser%2D%5F": "/~user-_",
    "/caf%c3%a9": "/caf%C3%A9",
    "/caf\xc3\xa9": "/caf%C3%A9",
    "/%e0%a4%95/%f0%9f%98%80/sm%f8r": "/%E0%A4%95/%F0%9F%98%80/sm%F8r",
    "/a%20b": "/a%20b",
    "/a%2fb": "/a%2Fb",
    "/a%5cb": "/a%5Cb",
    "/%252e%252e/a": "/%252e%252e/a",
    "/a;x=1/b": "/a;x=1/b",
    "/a/..;/b": "/a/..;/b",
    "/a%3bx": "/a%3Bx",
    "/a+b&c=d,e!$'()*:@": "/a+b&c=d,e!$'()*:@",
    '/a|b"c{d}^`<>': '/a|b"c{d}^`<>',
    "/A/b": "/A/b",
}
REFUSED = [
    "/a%e0%80%afb", "/a\xe0\x80\xafb", "/a%f0%80%80%af", "/a%F8%80%80%80%AF", "/a%fc%80%80%80%80%af",
    "", "a", "*", "?x", "/%", "/%4", "/%zz", "/%%41", "/%00", "/a%0d%0ab", "/%1f", "/%7f", "/%c0%af", "/%C1%9c",
    "/a\\b", "\\a", "/a b", "/a#b", "/a\tb", "/a\0b", "/a\r\nb", "/a\x7fb", "/\xc0\xaf", "/?a b", "/?a#b", "/?\0",
    "/?a\rb",
    "/\u0100", "/?\u0100", "/\ud800",
]  # fmt: skip


@pytest.mark.parametrize(("path", "expected"), CANONICAL.items())
@pytest.mark.parametrize("query", ["", "?", "?a=%zz&b=//../;\\"])
def test_canonical_paths(path: str, expected: str, query: str) -> None:
    assert normalise(path + query) == (expected, query)


@pytest.mark.parametrize("target", REFUSED)
def test_refused_paths(target: str) -> None:
    bad = normalise(target)
    assert isinstance(bad, BadPath)
    assert bad.reason.isascii()
    assert bad.reason.isprintable()


TARGETS = st.one_of(
    st.text(),
    st.text("/.%2eEfF5cC;\\ab?#c3aA", max_size=24).map(lambda text: "/" + text),
    st.lists(
        st.sampled_from(["/", "..", ".", "%2e", "%2F", "%5c", ";x", "a", "%61", "%25", "%00", "\\", "\xe9", "%C3"]),
        max_size=12,
    ).map(lambda pieces: "/" + "".join(pieces)),
)  # fmt: skip


@settings(deadline=None)
@given(TARGETS)
def test_normalise_is_idempotent_and_never_raises(target: str) -> None:
    parts = normalise(target)
    if isinstance(parts, BadPath):
        return
    path, query = parts
    assert normalise(path + query) == parts
    assert path.startswith("/")
    assert path.isascii()
    assert "//" not in path
    assert not {".", ".."} & set(path.split("/"))
    assert not set("\\#? \0\r\n") & set(path)
    for reading in readings(path):
        assert not {".", ".."} & set(reading.split("/"))


@settings(deadline=None)
@given(st.one_of(st.sampled_from(["GET", "OPTIONS", "CONNECT"]), st.text()),
       st.one_of(TARGETS, st.text().map(lambda text: "http://" + text)),
       st.one_of(st.sampled_from(["echo", "echo:80"]), st.text()), st.one_of(st.none(), st.text()))  # fmt: skip
def test_any_target_is_read_or_refused(method: str, target: str, authority: str, host: str | None) -> None:
    read = read_target(method, target, authority, host)
    if isinstance(read, Target):
        again = read_target(method, read.path + read.query, read.authority, None)
        assert again == read
    else:
        assert read.status in (400, 501)
        assert read.reason


@pytest.mark.parametrize(
    ("method", "target", "host", "expected"),
    [
        ("GET", "/a/../b?c", "echo", Target("echo", "/b", "?c")),
        ("GET", "/", "", Target("", "/")),
        ("GET", "http://other.example/a//b?c", "echo", Target("other.example", "/a/b", "?c")),
        ("GET", "HTTP://other:81", "echo", Target("other:81", "/")),
        ("GET", "https://other?x", "echo", Target("other", "/", "?x")),
        ("OPTIONS", "http://other", "echo", Target("other", "*")),
        ("OPTIONS", "*", "echo", Target("echo", "*")),
        ("GET", "/http://other/", "echo", Target("echo", "/http:/other/")),
        ("GET", "/", "[fd00::1]:80", Target("[fd00::1]:80", "/")),
    ],
)
def test_forms_of_targets(method: str, target: str, host: str, expected: Target) -> None:
    assert read_target(method, target, host) == expected


@pytest.mark.parametrize(
    ("method", "target", "host", "status"),
    [
        ("GET", "*", "echo", 400),
        ("CONNECT", "other:443", "other:443", 501),
        ("CONNECT", "*", "echo", 501),
        ("CONNECT", "/ws", "echo", 501),
        ("GET", "other:443", "echo", 400),
        ("GET", "ftp://other/", "echo", 400),
        ("GET", "http:///a", "echo", 400),
        ("GET", "http://user@other/", "echo", 400),
        ("GET", "http://other:0/", "echo", 400),
        ("GET", "http://other:99999/", "echo", 400),
        ("GET", "http://a b/", "echo", 400),
        ("GET", "http://other\\@evil/", "echo", 400),
        ("GET", "/", "user@echo", 400),
        ("GET", "/", "echo, other", 400),
        ("GET", "/", "echo/admin", 400),
        ("GET", "/", "echo?x", 400),
        ("GET", "/", "%65cho", 400),
        ("GET", "/", "echo:", 400),
        ("GET", "/", "fd00::1", 400),
    ],
)
def test_refused_targets(method: str, target: str, host: str, status: int) -> None:
    read = read_target(method, target, host)
    assert isinstance(read, BadTarget)
    assert read.status == status


def test_host_beside_authority_must_be_the_same() -> None:
    assert read_target("GET", "/", "echo", "ECHO") == Target("echo", "/")
    assert isinstance(read_target("GET", "/", "echo", "other"), BadTarget)
