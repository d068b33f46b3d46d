"""Which backend a request reaches: the cases of Gateway API's conformance tests."""

from __future__ import annotations

import pytest

from mesh.model.routing import HttpMatch, MatchType, Route, ValueMatch
from tests.waypoint.routing.make import ECHO, choose, get, grpc, grpc_route, http_route, match, outcome, port, rule
from waypoint.routing.request import Request
from waypoint.routing.tables import PortTable

V = "version"
TABLES: dict[str, PortTable] = {
    "mesh split": port(http_route(rule(match("=/v1"), to="v1"), rule(match("=/v2"), to="v2"))),
    "mesh matching": port(
        http_route(
            rule(match("/"), match(headers={V: "one"}), to="v1"),
            rule(match("/v2"), match(headers={V: "two"}), to="v2"),
        )
    ),
    "query": port(
        http_route(
            rule(match(query={"animal": "whale"}), to="v1"),
            rule(match(query={"animal": "dolphin"}), to="v2"),
            rule(match("/path1", query={"animal": "whale"}), to="v1"),
            rule(match(headers={V: "one"}, query={"animal": "whale"}), to="v2"),
            rule(match("/path3", query={"animal": "shark"}),
                 match("/path4", headers={V: "three"}, query={"animal": "kraken"}), to="v1"),
            rule(match("/path5"), to="v1"),
            rule(match(query={"animal": "hydra"}), to="v2"),
        )
    ),
    "method": port(
        http_route(
            rule(match(method="POST"), to="v1"),
            rule(match(method="GET"), to="v2"),
            rule(match("/path1", method="GET"), to="v1"),
            rule(match(method="PUT", headers={V: "one"}), to="v2"),
            rule(match("/path2", method="POST", headers={V: "two"}), to="v3"),
            rule(match("/path3", method="PATCH"), match("/path4", method="DELETE", headers={V: "three"}), to="v1"),
            rule(match("/path5"), to="v1"),
            rule(match(method="PATCH"), to="v2"),
            rule(match(headers={V: "four"}), to="v3"),
        )
    ),
    "order": port(
        http_route(
            rule(match("=/match/exact/one"), to="v3"),
            rule(match("=/match/exact"), to="v2"),
            rule(match("=/match"), to="v1"),
            rule(match("/match/prefix/one"), to="v2"),
            rule(match("/match/prefix/"), to="v1"),
            rule(match("/match"), to="v3"),
        )
    ),
    "headers": port(
        http_route(
            rule(match(headers={V: "one"}), to="v1"),
            rule(match(headers={V: "two"}), to="v2"),
            rule(match(headers={V: "two", "color": "orange"}), to="v1"),
            rule(match(headers={"color": "blue"}), match(headers={"color": "green"}), to="v1"),
            rule(match(headers={"color": "red"}), match(headers={"color": "yellow"}), to="v2"),
        )
    ),
    "exact": port(http_route(rule(match("=/one"), to="v1"), rule(match("=/two"), to="v2"))),
    "named": port(http_route(rule(match("/named"), to="v1", name="named"), rule(match("/unnamed"), to="v2"))),
    "no route": port(),
    "grpc": port(
        grpc_route(
            grpc("pkg.Echo", "One", to="v1"),
            grpc("pkg.Echo", "Two", to="v2"),
            grpc("pkg.Other", to="v3"),
            grpc(method="Three", to="v4"),
            grpc(headers={V: "two"}, to="v5"),
        )
    ),
}  # fmt: skip

CASES: list[tuple[str, Request, str | int]] = [
    ("mesh split", get("/v1"), "v1"),
    ("mesh split", get("/v2"), "v2"),
    ("mesh split", get("/v3"), 404),
    ("mesh matching", get("/"), "v1"),
    ("mesh matching", get("/example"), "v1"),
    ("mesh matching", get("/", version="one"), "v1"),
    ("mesh matching", get("/v2"), "v2"),
    ("mesh matching", get("/v2/example"), "v2"),
    ("mesh matching", get("/", version="two"), "v2"),
    ("mesh matching", get("/v2/"), "v2"),
    ("mesh matching", get("/v2example"), "v1"),
    ("mesh matching", get("/foo/v2/example"), "v1"),
    ("query", get("/?animal=whale"), "v1"),
    ("query", get("/?animal=dolphin"), "v2"),
    ("query", get("/?animal=whale&otherparam=irrelevant"), "v1"),
    ("query", get("/?animal=dolphin&color=yellow"), "v2"),
    ("query", get("/?%61nimal=whal%65"), "v1"),
    ("query", get("/?animal=dog&animal=whale"), 404),
    ("query", get("/?color=blue"), 404),
    ("query", get("/?animal=dog"), 404),
    ("query", get("/?animal=whaledolphin"), 404),
    ("query", get("/"), 404),
    ("query", get("/?"), 404),
    ("query", get("/path1?animal=whale"), "v1"),
    ("query", get("/?animal=whale", version="one"), "v2"),
    ("query", get("/path3?animal=shark"), "v1"),
    ("query", get("/path4?animal=kraken", version="three"), "v1"),
    ("query", get("/?animal=shark"), 404),
    ("query", get("/path4?animal=kraken"), 404),
    ("query", get("/path5?animal=hydra"), "v1"),
    ("query", get("/?animal=hydra"), "v2"),
    ("method", get("/", "POST"), "v1"),
    ("method", get("/", "GET"), "v2"),
    ("method", get("/", "HEAD"), 404),
    ("method", get("/", "get"), 404),
    ("method", get("/path1", "GET"), "v1"),
    ("method", get("/", "PUT", version="one"), "v2"),
    ("method", get("/path2", "POST", version="two"), "v3"),
    ("method", get("/path3", "PATCH"), "v1"),
    ("method", get("/path4", "DELETE", version="three"), "v1"),
    ("method", get("/path4", "DELETE"), 404),
    ("method", get("/", "PUT"), 404),
    ("method", get("/path5", "PATCH"), "v1"),
    ("method", get("/", "PATCH", version="four"), "v2"),
    ("method", get("/", "TRACE", version="four"), "v3"),
    ("order", get("/match"), "v1"),
    ("order", get("/match/exact"), "v2"),
    ("order", get("/match/exact/one"), "v3"),
    ("order", get("/match/any"), "v3"),
    ("order", get("/match/prefix/any"), "v1"),
    ("order", get("/match/prefix/one/any"), "v2"),
    ("order", get("/matching"), 404),
    ("headers", get(version="one"), "v1"),
    ("headers", get(version="two"), "v2"),
    ("headers", get(version="two", color="orange"), "v1"),
    ("headers", get(color="blue"), "v1"),
    ("headers", get(color="green"), "v1"),
    ("headers", get(color="red"), "v2"),
    ("headers", get(color="yellow"), "v2"),
    ("headers", get(color="purple"), 404),
    ("headers", get(color="orange"), 404),
    ("headers", get(some_other_header="one"), 404),
    ("exact", get("/one"), "v1"),
    ("exact", get("/two"), "v2"),
    ("exact", get("/"), 404),
    ("exact", get("/one/example"), 404),
    ("exact", get("/two/"), 404),
    ("exact", get("/Two"), 404),
    ("named", get("/named"), "v1"),
    ("named", get("/unnamed"), "v2"),
    ("no route", get("/anything"), ECHO),
    ("grpc", get("/pkg.Echo/One", "POST"), "v1"),
    ("grpc", get("/pkg.Echo/Two", "POST"), "v2"),
    ("grpc", get("/pkg.Other/Any", "POST"), "v3"),
    ("grpc", get("/some.Service/Three", "POST"), "v4"),
    ("grpc", get("/some.Service/Four", "POST"), 404),
    ("grpc", get("/some.Service/Four", "POST", version="two"), "v5"),
    ("grpc", get("/pkg.Echo/One/Three", "POST"), 404),
]


@pytest.mark.parametrize(("table", "request_", "expected"), CASES)
def test_conformance_cases(table: str, request_: Request, expected: str | int) -> None:
    assert outcome(TABLES[table], request_) == expected


def test_the_answer_names_route_and_rule() -> None:
    table = TABLES["named"]
    chosen, other = choose(table, get("/named")), choose(table, get("/unnamed"))
    assert (chosen.route, chosen.rule, other.rule) == ("mesh/route", "named", "2")


def test_several_routes_of_one_port_are_one_table() -> None:
    table = port(
        http_route(rule(match("/a"), to="a"), rule(match("/b"), to="b"), name="first"),
        http_route(rule(match("/a/deep"), to="deep"), rule(match("/b"), to="later"), name="second"),
    )
    assert [outcome(table, get(path)) for path in ("/a", "/a/deep/er", "/b")] == ["a", "deep", "b"]


def test_of_equal_matches_the_oldest_route_wins_then_the_name() -> None:
    young = http_route(rule(to="young"), name="a", created=20)
    old, twin = http_route(rule(to="old"), name="z", created=10), http_route(rule(to="twin"), name="y", created=10)
    assert outcome(port(young, old), get()) == "old"
    assert outcome(port(old, twin, young), get()) == "twin"


def test_names_are_compared_as_namespace_slash_name() -> None:
    """Gateway API orders "{namespace}/{name}" as one text, in which "-" comes before "/"."""
    longer, shorter = Route("a-b", "r", http=(rule(to="longer"),)), Route("a", "r", http=(rule(to="shorter"),))
    assert outcome(port(shorter, longer), get()) == "longer"


def test_an_expression_beats_prefixes_and_loses_to_exact_paths() -> None:
    table = port(
        http_route(rule(match("/users/all"), to="prefix"), rule(match("~/users/[a-z0-9]+"), to="regex"),
                   rule(match("=/users/me"), to="exact"))
    )  # fmt: skip
    paths = ("/users/7", "/users/me", "/users/all", "/users/all/x", "/users/7/x")
    assert [outcome(table, get(path)) for path in paths] == ["regex", "exact", "regex", "prefix", 404]


def test_values_match_by_expression_as_a_whole() -> None:
    headers = (ValueMatch("version", "v[0-9]+", MatchType.REGEX),)
    query = (ValueMatch("id", "[0-9]{1,3}", MatchType.REGEX),)
    table = port(http_route(rule(HttpMatch(headers=headers, query=query))))
    assert outcome(table, get("/?id=12", version="v3")) == "v1"
    assert outcome(table, get("/?id=1234", version="v3")) == 404
    assert outcome(table, get("/?id=12", version="xv3")) == 404


def test_of_a_name_given_twice_the_first_match_counts() -> None:
    twice = (ValueMatch("version", "one"), ValueMatch("version", "two"))
    table = port(http_route(rule(HttpMatch(headers=twice))))
    assert outcome(table, get(version="one")) == "v1"


def test_of_a_repeated_header_the_first_line_counts() -> None:
    table = port(http_route(rule(match(headers={"version": "one"}))))
    lines = (("version", "one"), ("version", "two"))
    assert outcome(table, Request("GET", "http", "echo", "/", "", lines)) == "v1"
    assert outcome(table, Request("GET", "http", "echo", "/", "", lines[::-1])) == 404


def test_host_as_a_header_is_the_authority() -> None:
    table = port(http_route(rule(match(headers={"host": "a.example"}))))
    assert outcome(table, get(authority="a.example")) == "v1"
    assert outcome(table, get(authority="b.example")) == 404


@pytest.mark.parametrize("written", ["/café", "/caf%C3%A9", "/caf%c3%a9", "/%63af%c3%A9"])
def test_paths_of_routes_have_the_spelling_of_requests(written: str) -> None:
    assert outcome(port(http_route(rule(match("=" + written)))), get("/caf%C3%A9")) == "v1"


def test_asterisk_is_under_no_prefix() -> None:
    assert outcome(port(http_route(rule(match("/")))), get("*", "OPTIONS")) == 404
    assert outcome(port(), get("*", "OPTIONS")) == ECHO
