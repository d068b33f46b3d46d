"""Tables: who gets which routes, shares of backends, errors, policies, and what is not compiled twice."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.model.http_policy import HttpAction, HttpPolicy
from mesh.model.routing import (
    AppProtocol,
    Filters,
    Gateway,
    GrpcRule,
    HeaderChange,
    HttpMatch,
    MatchType,
    PathMatch,
    PortRouting,
    Retry,
    ServiceRouting,
    TcpRule,
    Timeouts,
    TlsRule,
)
from mesh.model.routing import Route as RouteValue
from mesh.model.workload import PolicyKey, ServiceKey
from mesh.policy.evaluate import Denial, Permit
from mesh.policy.http.evaluate import evaluate_http
from tests.policy.http.make import facts
from tests.waypoint.routing.make import (
    ECHO,
    WAYPOINT,
    backend,
    choose,
    client,
    forwarded,
    get,
    grpc,
    grpc_route,
    http_route,
    match,
    outcome,
    port,
    replied,
    rule,
    tables,
    to,
)
from waypoint.routing.streams import Connect, Refuse
from waypoint.routing.tables import PortTable, compile_tables
from waypoint.routing.weights import Weights, draw_share

# --- ports and clients


def test_without_routes_a_request_goes_to_the_service_as_it_is() -> None:
    table = compile_tables((ServiceRouting(WAYPOINT, ECHO, (PortRouting(80, AppProtocol.HTTP2),)),)).port(ECHO, 80)
    assert table is not None
    request = get("/a?b", x="y")
    sent = forwarded(table, request)
    assert sent.request is request
    assert (sent.to.service, sent.to.port, sent.to.protocol) == (ECHO, 80, AppProtocol.HTTP2)
    assert sent.answer((("x", "y"),)) == (("x", "y"),)


def test_each_port_has_its_own_routes() -> None:
    one = http_route(rule(filters=Filters(response_headers=HeaderChange(set=(("x", "v1"),)))))
    service = ServiceRouting(WAYPOINT, ECHO, (PortRouting(80, routes=(one,)), PortRouting(8080)))
    found = compile_tables((Gateway(WAYPOINT), service))
    first, second = found.port(ECHO, 80), found.port(ECHO, 8080)
    assert first
    assert second
    assert (forwarded(first, get()).answer(()), forwarded(second, get()).answer(())) == ((("x", "v1"),), ())
    assert found.port(ECHO, 81) is None
    assert found.port(ServiceKey("mesh/other"), 80) is None


def test_consumer_routes_replace_all_others_for_their_clients() -> None:
    table = port(
        http_route(rule(match("/"), to="producer"), rule(match("=/exact"), to="producer"), name="p"),
        http_route(rule(match("/a"), to="consumer"), name="c", clients="consumer", created=99),
    )
    assert [outcome(table, get(path), namespace="consumer") for path in ("/a", "/exact")] == ["consumer", 404]
    assert [outcome(table, get(path), namespace="mesh") for path in ("/a", "/exact")] == ["producer", "producer"]


def test_clients_without_consumer_routes_have_the_service() -> None:
    table = port(http_route(rule(to="consumer"), clients="consumer"))
    assert outcome(table, get(), namespace="consumer") == "consumer"
    assert outcome(table, get(), namespace="mesh") == ECHO


def test_grpc_routes_come_before_http_routes() -> None:
    table = port(http_route(rule(match("=/pkg.Echo/One"), to="http")), grpc_route(grpc("pkg.Echo", "Two", to="grpc")))
    assert outcome(table, get("/pkg.Echo/Two", "POST")) == "grpc"
    assert outcome(table, get("/pkg.Echo/One", "POST")) == 404


def test_timeouts_and_retries_come_with_the_rule() -> None:
    timeouts, retry = Timeouts(0.5, 0.2), Retry((503,), 2, 0.1)
    sent = forwarded(port(http_route(rule(timeouts=timeouts, retry=retry))), get())
    assert (sent.timeouts, sent.retry) == (timeouts, retry)


# --- shares


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6), st.integers(1, 2000))
def test_weights_hold_within_one_draw_of_evenly_spread_chances(weights: list[int], rounds: int) -> None:
    table, total = Weights(weights), sum(weights)
    drawn = [table.draw((at + 0.5) / rounds) for at in range(rounds)]
    if not total:
        assert drawn == [None] * rounds
        return
    for index, weight in enumerate(weights):
        count = sum(1 for one in drawn if one and one[0] == index)
        assert abs(count - Fraction(weight * rounds, total)) <= 1
        assert weight or not count


@settings(deadline=None)
@given(st.lists(st.integers(0, 1_000_000), min_size=1, max_size=8), st.floats(0, 1, exclude_max=True))
def test_what_is_left_of_a_chance_is_a_chance(weights: list[int], chance: float) -> None:
    drawn = Weights(weights).draw(chance)
    if drawn is not None:
        assert weights[drawn[0]] > 0
        assert 0 <= drawn[1] < 1
    for share in (0.0, 0.3, 1.0):
        assert 0 <= draw_share(chance, share)[1] < 1


@pytest.mark.parametrize("chance", [0.0, 1 - 2**-53])
def test_the_ends_of_the_range(chance: float) -> None:
    drawn = Weights([0, 3, 0, 7, 0]).draw(chance)
    assert drawn is not None
    assert drawn[0] == (1 if chance == 0 else 3)


def test_seventy_to_thirty_and_a_missing_backend_of_weight_zero() -> None:
    backends = (backend("v1", weight=70), backend("v2", weight=30), backend("v3", weight=0, error="no such service"))
    table = port(http_route(rule(backends=backends)))
    seen = [outcome(table, get(), at / 500) for at in range(500)]
    assert [seen.count(name) for name in ("v1", "v2", "v3", 500)] == [350, 150, 0, 0]


def test_the_share_of_a_missing_backend_fails_and_no_more() -> None:
    backends = (backend("v1", weight=9), backend("v2", weight=1, error="service mesh/v2 does not exist"))
    table = port(http_route(rule(backends=backends)))
    seen = [outcome(table, get(), at / 100) for at in range(100)]
    assert (seen.count("v1"), seen.count(500)) == (90, 10)
    assert replied(table, get(), 0.95).reason == "service mesh/v2 does not exist"


# --- errors, in the client's protocol

GRPC = {"content_type": "application/grpc+proto"}


@pytest.mark.parametrize(
    ("broken", "status", "code"),
    [
        (rule(backends=()), 500, 14),
        (rule(backends=(backend("v1", weight=0), backend("v2", weight=0))), 500, 14),
        (rule(backends=(backend("v1", error="no such service"),)), 500, 14),
        (rule(backends=(backend("v1", filters=Filters(error="unknown filter")),)), 500, 14),
        (rule(filters=Filters(error="unknown filter")), 500, 14),
        (rule(match("/elsewhere")), 404, 12),
    ],
)
def test_errors_for_http_and_grpc(broken: object, status: int, code: int) -> None:
    table = port(http_route(broken))  # type: ignore[arg-type]
    plain, remote = replied(table, get("/x", "POST")), replied(table, get("/x", "POST", **GRPC))
    assert (plain.status, plain.grpc) == (status, None)
    assert (remote.status, remote.grpc) == (status, code)
    assert plain.reason


@pytest.mark.parametrize(
    ("route", "code"),
    [
        (grpc_route(grpc("pkg.Echo", "One")), 12),
        (grpc_route(GrpcRule(backends=(backend("v3", error="no such service"),))), 14),
        (grpc_route(GrpcRule()), 14),
    ],
)
def test_errors_of_grpc_routes(route: RouteValue, code: int) -> None:
    assert replied(port(route), get("/pkg.Echo/Two", "POST", **GRPC)).grpc == code


def test_a_rule_that_fails_leaves_its_sibling_alone() -> None:
    broken = rule(match("/bad"), backends=(backend("x", error="not permitted: no ReferenceGrant"),))
    table = port(http_route(broken, rule(match("/good"))))
    assert [outcome(table, get(path)) for path in ("/bad", "/good")] == [500, "v1"]


def test_an_expression_that_is_none_drops_its_match_and_is_reported() -> None:
    bad = HttpMatch(PathMatch(MatchType.REGEX, "(?=x)"))
    found = tables(http_route(rule(bad, match("/ok"), name="both")))
    table = found.port(ECHO, 80)
    assert table
    assert [outcome(table, get(path)) for path in ("/ok", "/x")] == ["v1", 404]
    (problem,) = found.problems()
    assert problem.startswith("route mesh/route rule both: ")


# --- connections that are not HTTP


def tls(*rules: TlsRule, name: str = "tls", created: float = 0.0) -> RouteValue:
    return RouteValue("mesh", name, created, tls=rules)


def test_server_names_exact_before_the_longest_wild_card() -> None:
    table = port(
        tls(
            TlsRule((), (backend("any"),)),
            TlsRule(("*.example.org",), (backend("wide"),)),
            TlsRule(("*.a.example.org", "b.example.org"), (backend("narrow"),)),
        )
    )
    names = {"b.example.org": "narrow", "B.Example.org.": "narrow", "x.a.example.org": "narrow", "": "any",
             "a.example.org": "wide", "y.x.example.org": "wide", "example.org": "any", "other": "any"}  # fmt: skip
    for name, expected in names.items():
        assert table.connect(client(), name, 0.5) == Connect(
            to(expected), "mesh/tls", table.connect(client(), name, 0).rule
        )


def test_a_server_name_without_a_route_is_refused() -> None:
    refused = port(tls(TlsRule(("a.example",), (backend("a"),)))).connect(client(), "b.example", 0)
    assert isinstance(refused, Refuse)
    assert "b.example" in refused.reason


def test_tcp_goes_by_the_oldest_route_and_its_weights() -> None:
    def tcp(name: str, created: float, *names: str) -> RouteValue:
        return RouteValue("mesh", name, created, tcp=(TcpRule(tuple(backend(one) for one in names)),))

    table = port(tcp("young", 2, "young"), tcp("old", 1, "one", "two"))
    assert [table.connect(client(), "", chance) for chance in (0.2, 0.7)] == [
        Connect(to("one"), "mesh/old", "1"),
        Connect(to("two"), "mesh/old", "1"),
    ]
    assert table.routes_streams(client())
    assert outcome(table, get()) == 500


def test_a_broken_backend_of_a_stream_refuses() -> None:
    for rules in ((TcpRule((backend("x", error="no such service"),)),), (TcpRule(),)):
        assert isinstance(port(RouteValue("mesh", "t", tcp=rules)).connect(client(), "", 0), Refuse)


def test_without_routes_streams_go_to_the_service_and_http_routes_take_none() -> None:
    assert port().connect(client(), "any", 0) == Connect(to(ECHO, 80))
    assert isinstance(port(http_route(rule())).connect(client(), "any", 0), Refuse)


# --- policies


def policy(name: str, action: HttpAction = HttpAction.ALLOW) -> HttpPolicy:
    return HttpPolicy("mesh", name, action)


def test_policies_of_the_gateway_and_the_service_hold_together() -> None:
    gateway, service = (
        Gateway(WAYPOINT, (PolicyKey("mesh/g"),)),
        ServiceRouting(WAYPOINT, ECHO, (), (PolicyKey("mesh/s"),)),
    )
    found = compile_tables((gateway, service, policy("g"), policy("s"), policy("unrelated")))
    assert [one.key for one in found.policies(ECHO).allow] == ["mesh/g", "mesh/s"]
    assert [one.key for one in found.policies().allow] == ["mesh/g"]


def test_a_policy_that_is_named_but_not_there_denies() -> None:
    found = tables(policies=(PolicyKey("mesh/absent"),))
    verdict = evaluate_http(found.policies(ECHO), facts())
    assert isinstance(verdict, Denial)
    assert verdict.policy == "mesh/absent"
    assert isinstance(evaluate_http(found.policies(), facts()), Permit)


def test_without_its_gateway_nothing_is_allowed() -> None:
    assert isinstance(evaluate_http(compile_tables(()).policies(), facts()), Denial)


# --- changes


def test_what_has_not_changed_is_not_compiled_again() -> None:
    first, second = ServiceKey("mesh/a"), ServiceKey("mesh/b")

    def resources(path: str) -> tuple[object, ...]:
        routes = {first: (http_route(rule(match("/"))),), second: (http_route(rule(match(path))),)}
        services = (ServiceRouting(WAYPOINT, key, (PortRouting(80, routes=found),)) for key, found in routes.items())
        return (Gateway(WAYPOINT), policy("p"), *services)

    old = compile_tables(resources("/old"))  # type: ignore[arg-type]
    new = compile_tables(resources("/new"), old)  # type: ignore[arg-type]
    assert new.port(first, 80) is old.port(first, 80)
    changed = new.port(second, 80)
    assert isinstance(changed, PortTable)
    assert [outcome(changed, get(path)) for path in ("/old", "/new")] == [404, "v1"]
    assert choose(old.port(second, 80) or changed, get("/old")), "who still holds the old tables goes on with them"
