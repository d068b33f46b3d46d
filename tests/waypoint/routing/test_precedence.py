"""The index finds what Gateway API's precedence says, read literally: every match of every rule, sorted, one by one."""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.model.routing import HttpMatch, HttpRule, MatchType, PathMatch, Route, ValueMatch
from mesh.model.workload import ServiceKey
from tests.waypoint.routing.make import backend, outcome, port
from waypoint.routing.request import Request

SEGMENTS = st.sampled_from(["a", "b", "ab", "c"])
PATHS = st.lists(SEGMENTS, max_size=3).map(lambda segments: "/" + "/".join(segments))
ENDED = st.tuples(PATHS, st.sampled_from(["", "/"])).map(lambda pair: pair[0].rstrip("/") + pair[1] or "/")
METHODS = st.sampled_from(["GET", "POST", "PUT"])
NAMES, VALUES = st.sampled_from(["x", "y", "z"]), st.sampled_from(["1", "2"])
PAIRS = st.dictionaries(NAMES, VALUES, max_size=2)
MATCHES = st.builds(
    lambda kind, path, method, headers, query: HttpMatch(PathMatch(kind, path), headers, query, method),
    st.sampled_from([MatchType.EXACT, MatchType.PREFIX]),
    ENDED,
    st.one_of(st.just(""), METHODS),
    PAIRS.map(lambda pairs: tuple(ValueMatch(*pair) for pair in pairs.items())),
    PAIRS.map(lambda pairs: tuple(ValueMatch(*pair) for pair in pairs.items())),
)
RULES = st.lists(st.lists(MATCHES, min_size=1, max_size=3), min_size=1, max_size=3)
ROUTES = st.lists(st.tuples(st.sampled_from(["n", "n-a"]), st.sampled_from(["p", "q"]), st.integers(0, 1), RULES),
                  min_size=1, max_size=4, unique_by=lambda route: route[:2])  # fmt: skip
REQUESTS = st.builds(
    lambda method, path, headers, query: Request(
        method, "http", "h", path, "?" + "&".join(f"{k}={v}" for k, v in query), tuple(headers)
    ),
    METHODS,
    ENDED,
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
)


def built(routes: list[Any]) -> list[Route]:
    return [
        Route(namespace, name, float(created), http=tuple(
            HttpRule(tuple(matches), backends=(backend(f"{namespace}/{name}/{number}"),))
            for number, matches in enumerate(rules)
        ))
        for namespace, name, created, rules in routes
    ]  # fmt: skip


# --- the oracle


def holds(match: HttpMatch, request: Request) -> bool:
    path, wanted = request.path, match.path.value
    if match.path.type is MatchType.EXACT:
        fits = path == wanted
    else:
        have, want = path.split("/"), wanted.rstrip("/").split("/")
        fits = have[: len(want)] == want
    query = [tuple(pair.split("=")) for pair in request.query[1:].split("&") if pair]
    return (
        fits
        and match.method in ("", request.method)
        and all(first(request.headers, one.name) == one.value for one in match.headers)
        and all(first(query, one.name) == one.value for one in match.query)
    )


def first(pairs: Any, name: str) -> str | None:
    return next((value for key, value in pairs if key == name), None)


def before(left: tuple[Route, int, HttpMatch], right: tuple[Route, int, HttpMatch]) -> int:
    """HTTPRouteRule.matches: the tie-breakers, in their order. Negative when `left` comes first."""
    (one, at, a), (two, other, b) = left, right
    exact_a, exact_b = a.path.type is MatchType.EXACT, b.path.type is MatchType.EXACT
    ladder = [
        exact_b - exact_a,
        len(b.path.value.rstrip("/")) - len(a.path.value.rstrip("/")),
        bool(b.method) - bool(a.method),
        len(b.headers) - len(a.headers),
        len(b.query) - len(a.query),
        one.created - two.created,
    ]
    for step in ladder:
        if step:
            return int(step)
    names = f"{one.namespace}/{one.name}", f"{two.namespace}/{two.name}"
    if names[0] != names[1]:
        return -1 if names[0] < names[1] else 1
    return at - other


def expected(routes: list[Route], request: Request) -> ServiceKey | int:
    every = [
        (route, at, match) for route in routes for at, rule in enumerate(route.http or ()) for match in rule.matches
    ]
    for route, at, match in sorted(every, key=cmp_to_key(before)):
        if holds(match, request):
            assert route.http
            return route.http[at].backends[0].service
    return 404


@given(ROUTES, st.lists(REQUESTS, min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_as_the_precedence_read_literally(routes: list[Any], requests: list[Request], shuffle: Any) -> None:
    all_routes = built(routes)
    shuffled = list(all_routes)
    shuffle.shuffle(shuffled)  # the order in which they arrive says nothing
    table = port(*shuffled)
    for request in requests:
        assert outcome(table, request) == expected(all_routes, request)
