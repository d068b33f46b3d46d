"""HTTPCORSFilter: the seventeen cases of Gateway API's conformance test, and what browsers depend on."""

from __future__ import annotations

import pytest

from mesh.model.routing import Cors, Filters
from tests.waypoint.routing.make import forwarded, get, http_route, match, port, replied, rule
from waypoint.routing.request import Headers

ORIGIN, CREDENTIALS = "access-control-allow-origin", "access-control-allow-credentials"
METHODS, ALLOWED = "access-control-allow-methods", "access-control-allow-headers"
WANTED = "x-header-1, x-header-2"
LISTED = Cors(
    allow_origins=("https://www.foo.com", "https://*.bar.com"),
    allow_methods=("GET", "OPTIONS"),
    allow_headers=("x-header-1", "x-header-2"),
    expose_headers=("x-header-3", "x-header-4"),
    allow_credentials=True,
    max_age=3600,
)
WILD = Cors(allow_origins=("https://other.foo.com",), allow_methods=("*",), allow_headers=("*",))
FILTERS = {
    "listed": LISTED,
    "any method": Cors(allow_origins=("https://www.foo.com",), allow_methods=("*",)),
    "any origin": Cors(allow_origins=("*",), allow_methods=("PUT",)),
    "any, credentials": Cors(("https://other.foo.com",), ("*",), ("*",), (), True),
    "any, none": WILD,
    "wild port": Cors(allow_origins=("https://*.bar.com:8443", "http://localhost:*")),
    "any https": Cors(allow_origins=("https://*",)),
}
TABLE = port(
    http_route(*(rule(match(f"/{at}"), filters=Filters(cors=cors)) for at, cors in enumerate(FILTERS.values())))
)


def path(name: str) -> str:
    return f"/{list(FILTERS).index(name)}"


def preflight(name: str, origin: str, method: str = "GET", headers: str = "") -> tuple[int, dict[str, str]]:
    asked = {"access_control_request_headers": headers} if headers else {}
    request = get(path(name), "OPTIONS", origin=origin, access_control_request_method=method, **asked)
    answer = replied(TABLE, request)
    return answer.status, dict(answer.headers)


def response(name: str, origin: str, method: str = "GET", headers: Headers = ()) -> dict[str, str]:
    return dict(forwarded(TABLE, get(path(name), method, origin=origin)).answer(headers))


@pytest.mark.parametrize("origin", ["https://www.foo.com", "https://www.bar.com", "https://xpto.www.bar.com"])
def test_preflights_of_allowed_origins(origin: str) -> None:
    assert preflight("listed", origin, "GET", WANTED) == (200, {
        ORIGIN: origin,
        METHODS: "GET, OPTIONS",
        ALLOWED: WANTED,
        "access-control-expose-headers": "x-header-3, x-header-4",
        "access-control-max-age": "3600",
        CREDENTIALS: "true",
        "vary": "origin",
    })  # fmt: skip


@pytest.mark.parametrize(
    "origin",
    ["https://foobar.com", "https://bar.com", "http://www.foo.com", "https://www.foo.com:8443", "null", "",
     "https://evil.com/.bar.com", "https://evil.com#.bar.com", "https://www.foo.com.evil.com", "https://.bar.com.evil"],
)  # fmt: skip
def test_preflights_of_other_origins(origin: str) -> None:
    status, headers = preflight("listed", origin)
    assert status == 403
    assert ORIGIN not in headers


@pytest.mark.parametrize("origin", ["https://www.foo.com", "https://www.bar.com"])
def test_simple_requests_of_allowed_origins(origin: str) -> None:
    headers = response("listed", origin)
    assert (headers[ORIGIN], headers[CREDENTIALS]) == (origin, "true")


def test_simple_requests_of_other_origins() -> None:
    assert ORIGIN not in response("listed", "https://foobar.com")


def test_any_method_is_answered_with_the_one_asked_for_and_without_credentials() -> None:
    status, headers = preflight("any method", "https://www.foo.com", "POST")
    assert (status, headers[METHODS], headers[ORIGIN]) == (200, "POST", "https://www.foo.com")
    assert CREDENTIALS not in headers
    assert headers["access-control-max-age"] == "5"


@pytest.mark.parametrize("origin", ["https://foobar.com", "https://foobar.com:12345"])
def test_any_origin(origin: str) -> None:
    status, headers = preflight("any origin", origin, "PUT")
    assert (status, headers[ORIGIN], headers[METHODS]) == (200, origin, "PUT")
    simple = response("any origin", origin, "PUT")
    assert simple[ORIGIN] == origin
    assert CREDENTIALS not in headers
    assert CREDENTIALS not in simple


def test_wild_cards_with_credentials_echo_what_was_asked_for() -> None:
    status, headers = preflight("any, credentials", "https://other.foo.com", "PUT", WANTED)
    assert status == 200
    assert (headers[ORIGIN], headers[METHODS], headers[ALLOWED]) == ("https://other.foo.com", "PUT", WANTED)
    assert headers[CREDENTIALS] == "true"


def test_wild_cards_without_credentials() -> None:
    status, headers = preflight("any, none", "https://other.foo.com", "PUT", WANTED)
    assert (status, headers[METHODS], headers[ALLOWED]) == (200, "PUT", WANTED)
    assert CREDENTIALS not in headers


def test_simple_requests_with_and_without_credentials() -> None:
    assert response("any, credentials", "https://other.foo.com")[CREDENTIALS] == "true"
    assert response("any, none", "https://other.foo.com")[ORIGIN] == "https://other.foo.com"
    assert CREDENTIALS not in response("any, none", "https://other.foo.com")


@pytest.mark.parametrize(
    ("name", "origin", "allowed"),
    [
        ("wild port", "https://a.b.bar.com:8443", True),
        ("wild port", "https://a.bar.com", False),
        ("wild port", "http://localhost:3000", True),
        ("wild port", "http://localhost", False),
        ("any https", "https://anything.example:8443", True),
        ("any https", "http://anything.example", False),
    ],
)
def test_wild_cards_within_an_origin(name: str, origin: str, allowed: bool) -> None:
    assert (ORIGIN in response(name, origin)) is allowed


def test_what_the_app_says_itself_gives_way_for_allowed_origins_only() -> None:
    said: Headers = ((ORIGIN, "*"), (CREDENTIALS, "true"), ("x", "y"))
    assert response("any, none", "https://other.foo.com", headers=said) == {
        ORIGIN: "https://other.foo.com", "x": "y", "vary": "origin"
    }  # fmt: skip
    assert response("any, none", "https://else.example", headers=said)[ORIGIN] == "*"


def test_options_that_is_no_preflight_goes_on() -> None:
    assert forwarded(TABLE, get(path("listed"), "OPTIONS", origin="https://www.foo.com"))
    assert forwarded(TABLE, get(path("listed"), "OPTIONS", access_control_request_method="GET"))
