"""Routes as a waypoint gets them, and what their status says."""

from __future__ import annotations

from typing import Any

import pytest

from controller.store.kinds import key_of
from mesh.model.routing import (
    AppProtocol,
    Backend,
    Cors,
    GrpcMatch,
    HeaderChange,
    HttpMatch,
    HttpRule,
    MatchType,
    PathChange,
    PathMatch,
    PortRouting,
    Redirect,
    Retry,
    Rewrite,
    Timeouts,
    ValueMatch,
)
from mesh.model.workload import ServiceKey
from tests.compile.gateway_objects import backend, gateway, grant, route, to_service
from tests.compile.objects import Mesh, Object, namespace, service

PORTS = [
    {"name": "http", "port": 80},
    {"name": "grpc", "port": 7070},
    {"name": "tcp-db", "port": 9090},
    {"name": "anything", "port": 9000},
    {"name": "h2c", "port": 9001, "appProtocol": "kubernetes.io/h2c"},
    {"name": "https", "port": 443},
]
LABEL = {"labels": {"istio.io/use-waypoint": "gate"}}
WEB = Backend(ServiceKey("shop/web.shop.svc.cluster.local"), 80, protocol=AppProtocol.HTTP)


def shop(*more: Object) -> Mesh:
    vault = service("vault", namespace="bank", ports=[{"port": 80}])
    return Mesh(namespace(), gateway(), service("web", metadata=LABEL, ports=PORTS), vault, *more)


def on_port(mesh: Mesh, port: int = 80) -> PortRouting:
    (found,) = (each for each in mesh.ports() if each.port == port)
    return found


def rule(**given: Any) -> HttpRule:
    """The rule that an HTTPRoute with this one becomes."""
    (found,) = on_port(shop(route(rules=[given]))).routes
    assert found.http is not None
    return found.http[0]


def test_ports_say_what_they_speak() -> None:
    assert {each.port: each.protocol for each in shop().ports()} == {
        80: AppProtocol.HTTP,
        7070: AppProtocol.GRPC,
        9090: AppProtocol.TCP,
        9000: AppProtocol.AUTO,
        9001: AppProtocol.HTTP2,
        443: AppProtocol.TLS,
    }


def test_a_rule_without_anything_matches_everything_and_has_no_backend() -> None:
    assert rule() == HttpRule()


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"path": {"type": "Exact", "value": "/a"}}, HttpMatch(PathMatch(MatchType.EXACT, "/a"))),
        ({"path": {"type": "PathPrefix", "value": "/a/"}}, HttpMatch(PathMatch(MatchType.PREFIX, "/a/"))),
        ({"path": {"type": "RegularExpression", "value": "/a.*"}}, HttpMatch(PathMatch(MatchType.REGEX, "/a.*"))),
        ({"method": "POST"}, HttpMatch(method="POST")),
        (
            {"headers": [{"name": "Version", "value": "1"}, {"name": "VERSION", "value": "2"}]},
            HttpMatch(headers=(ValueMatch("version", "1"),)),
        ),
        (
            {"queryParams": [{"type": "RegularExpression", "name": "A", "value": "[0-9]+"}]},
            HttpMatch(query=(ValueMatch("A", "[0-9]+", MatchType.REGEX),)),
        ),
    ],
)
def test_matches(given: Object, match: HttpMatch) -> None:
    assert rule(matches=[given]).matches == (match,)


def change(*pairs: tuple[str, str]) -> list[Object]:
    return [{"name": name, "value": value} for name, value in pairs]


@pytest.mark.parametrize(
    ("filter_", "field", "value"),
    [
        (
            {
                "type": "RequestHeaderModifier",
                "requestHeaderModifier": {"set": change(("A", "1")), "add": change(("B", "2")), "remove": ["C"]},
            },
            "request_headers",
            HeaderChange((("A", "1"),), (("B", "2"),), ("C",)),
        ),
        (
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": change(("X", "1"), ("x", "2"))}},
            "response_headers",
            HeaderChange((("X", "1"),)),
        ),
        (
            {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "port": 8443, "statusCode": 307}},
            "redirect",
            Redirect("https", port=8443, status=307),
        ),
        (
            {
                "type": "URLRewrite",
                "urlRewrite": {
                    "hostname": "a.example",
                    "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"},
                },
            },
            "rewrite",
            Rewrite("a.example", PathChange(prefix="/b")),
        ),
        ({"type": "CORS", "cors": {"allowOrigins": ["https://*.a.example"]}}, "cors", Cors(("https://*.a.example",))),
    ],
)
def test_filters(filter_: Object, field: str, value: object) -> None:
    found = rule(filters=[filter_]).filters
    assert (getattr(found, field), found.error) == (value, "")


def test_mirrors_may_be_many() -> None:
    def mirror(**share: Any) -> Object:
        return {"type": "RequestMirror", "requestMirror": {"backendRef": backend(), **share}}

    found = rule(filters=[mirror(), mirror(percent=20), mirror(fraction={"numerator": 1, "denominator": 3})]).filters
    assert [(each.numerator, each.denominator) for each in found.mirrors] == [(100, 100), (20, 100), (1, 3)]
    assert {each.backend for each in found.mirrors} == {WEB}


def test_times_and_retries() -> None:
    found = rule(timeouts={"request": "1m30s", "backendRequest": "500ms"}, retry={"codes": [503], "backoff": "10ms"})
    assert found.timeouts == Timeouts(90.0, 0.5)
    assert found.retry == Retry((503,), 2, 0.01)


REDIRECT = {"type": "RequestRedirect", "requestRedirect": {"hostname": "a.example"}}
REWRITE = {"type": "URLRewrite", "urlRewrite": {"hostname": "a.example"}}


@pytest.mark.parametrize(
    ("given", "reason", "words"),
    [
        ({"filters": [REDIRECT, REWRITE]}, "IncompatibleFilters", "both RequestRedirect and URLRewrite"),
        ({"filters": [REWRITE, REWRITE]}, "IncompatibleFilters", "2 filters of type URLRewrite"),
        ({"filters": [REDIRECT], "backendRefs": [backend()]}, "IncompatibleFilters", "no backends"),
        ({"filters": [{"type": "ExtensionRef", "extensionRef": {}}]}, "", "type ExtensionRef is not supported"),
        ({"filters": [{"type": "URLRewrite"}]}, "", "says nothing"),
        (
            {
                "filters": [
                    {
                        "type": "RequestHeaderModifier",
                        "requestHeaderModifier": {"set": change(("A", "1\r\nTransfer-Encoding: chunked"))},
                    }
                ]
            },
            "",
            "control characters",
        ),
        (
            {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Content-Length"]}}]},
            "",
            "cannot be changed",
        ),
        (
            {"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["Trailer"]}}]},
            "",
            "cannot be changed",
        ),
        (
            {"filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": change(("Host", "x"))}}]},
            "",
            "by a filter of type URLRewrite",
        ),
        (
            {
                "matches": [{"path": {"type": "Exact", "value": "/a"}}],
                "filters": [
                    {
                        "type": "URLRewrite",
                        "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}},
                    }
                ],
            },
            "",
            "needs matches of type PathPrefix",
        ),
        ({"timeouts": {"request": "5"}}, "", "'5' is not a duration"),
        ({"timeouts": {"request": "1s", "backendRequest": "2s"}}, "", "longer than request"),
    ],
)
def test_what_cannot_be_done_is_an_error_to_its_rule_and_to_no_other(given: Object, reason: str, words: str) -> None:
    bad = route(rules=[given, {"matches": [{"path": {"value": "/good"}}], "backendRefs": [backend()]}])
    mesh = shop(bad)
    (found,) = on_port(mesh).routes
    assert found.http is not None
    assert words in found.http[0].filters.error
    assert found.http[1].filters.error == ""
    said = mesh.conditions(bad)
    if reason:
        assert (said["Accepted"].status, said["Accepted"].reason) == (False, reason)
    else:
        assert said["Accepted"].status
        assert words in said["PartiallyInvalid"].message
    alone = route(rules=[given])
    mesh.apply(alone)
    (found,) = on_port(mesh).routes
    assert found.http is not None
    assert words in found.http[0].filters.error
    said = mesh.conditions(alone)
    assert (said["Accepted"].status, said["Accepted"].reason) == (False, reason or "UnsupportedValue")
    assert "PartiallyInvalid" not in said


def test_a_match_that_cannot_be_is_left_out_and_with_the_last_one_the_rule() -> None:
    wrong = {"path": {"type": "RegularExpression", "value": "("}}
    both = route(rules=[{"matches": [wrong, {"method": "GET"}]}, {"matches": [wrong]}])
    mesh = shop(both)
    (found,) = on_port(mesh).routes
    assert found.http == (HttpRule((HttpMatch(method="GET"),)),)
    said = mesh.conditions(both)
    assert said["Accepted"].status
    assert said["PartiallyInvalid"].message.startswith("Dropped Rule: rules[0]: matches[0] is left out")
    only = route(rules=[{"matches": [wrong]}])
    mesh.apply(only)
    assert on_port(mesh).routes == ()
    assert mesh.conditions(only)["Accepted"].reason == "UnsupportedValue"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        (backend("missing"), "BackendNotFound"),
        (backend(port=81), "BackendNotFound"),
        (backend(port=None), "BackendNotFound"),
        (backend(kind="Pod"), "InvalidKind"),
        (backend(group="example.org"), "InvalidKind"),
        (backend("vault", namespace="bank"), "RefNotPermitted"),
    ],
)
@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"])
def test_a_backend_that_cannot_be_used_keeps_its_share(reference: Object, reason: str, kind: str) -> None:
    bad = route(kind, rules=[{"backendRefs": [reference | {"weight": 30}, backend(weight=70)]}], parents=[
        to_service(port=9000)
    ])  # fmt: skip
    mesh = shop(bad)
    (found,) = on_port(mesh, 9000).routes
    rules = found.http or found.grpc or found.tcp or found.tls
    assert rules is not None
    wrong, right = rules[0].backends
    assert (wrong.weight, right.weight) == (30, 70)
    assert wrong.error
    assert wrong.service == ""
    assert right.error == ""
    said = mesh.conditions(bad)
    assert said["Accepted"].status
    assert (said["ResolvedRefs"].status, said["ResolvedRefs"].reason) == (False, reason)


def test_a_backend_comes_and_goes() -> None:
    to_api = route(rules=[{"backendRefs": [backend("api", 80)]}])
    mesh, api = shop(to_api), service("api", ports=[{"port": 80}])
    assert mesh.conditions(to_api)["ResolvedRefs"].reason == "BackendNotFound"
    mesh.apply(api)
    assert mesh.conditions(to_api)["ResolvedRefs"].status
    assert on_port(mesh).routes[0].http[0].backends[0].error == ""  # type: ignore[index]
    mesh.delete(api)
    assert "there is no Service shop/api" in on_port(mesh).routes[0].http[0].backends[0].error  # type: ignore[index]


@pytest.mark.parametrize(
    ("given", "permitted"),
    [
        (grant(), True),
        (grant(name="vault"), True),
        (grant(name="other"), False),
        (grant(of="elsewhere"), False),
        (grant(kind="GRPCRoute"), False),
        (grant(namespace="shop"), False),
    ],
)
def test_a_grant_lets_routes_refer_across_namespaces_until_it_is_gone(given: Object, permitted: bool) -> None:
    to_vault = route(rules=[{"backendRefs": [backend("vault", namespace="bank")]}])
    mesh = shop(to_vault, given)
    assert mesh.conditions(to_vault)["ResolvedRefs"].status == permitted
    assert (on_port(mesh).routes[0].http[0].backends[0].error == "") == permitted  # type: ignore[index]
    mesh.delete(given)
    assert mesh.conditions(to_vault)["ResolvedRefs"].reason == "RefNotPermitted"
    assert on_port(mesh).routes[0].http[0].backends[0].error  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "parent", "ports"),
    [
        ("HTTPRoute", to_service(), {80, 7070, 9000, 9001}),
        ("GRPCRoute", to_service(), {7070, 9000, 9001}),
        ("TLSRoute", to_service(), {443, 9000}),
        ("TCPRoute", to_service(), {80, 7070, 9090, 9000, 9001, 443}),
        ("HTTPRoute", to_service(port=9090), {9090}),
        ("HTTPRoute", to_service(sectionName="tcp-db"), {9090}),
        ("HTTPRoute", to_service(port=80, sectionName="tcp-db"), set()),
        ("HTTPRoute", to_service(port=81), set()),
        ("HTTPRoute", to_service("missing"), set()),
    ],
)
def test_which_ports_a_route_is_attached_to(kind: str, parent: Object, ports: set[int]) -> None:
    given = route(kind, parents=[parent])
    mesh = shop(given)
    assert {each.port for each in mesh.ports() if each.routes} == ports
    accepted = mesh.conditions(given)["Accepted"]
    assert (accepted.status, accepted.reason) == ((True, "Accepted") if ports else (False, "NoMatchingParent"))


def test_a_route_that_names_a_port_says_what_it_speaks() -> None:
    for kind, port, protocol in (
        ("HTTPRoute", 9090, AppProtocol.AUTO),
        ("TCPRoute", 80, AppProtocol.TCP),
        ("TLSRoute", 80, AppProtocol.TLS),
    ):
        assert on_port(shop(route(kind, parents=[to_service(port=port)])), port).protocol is protocol


def test_one_kind_of_route_has_a_port() -> None:
    kinds = ("TCPRoute", "TLSRoute", "HTTPRoute", "GRPCRoute")
    routes = [route(kind, kind.lower(), parents=[to_service(port=9000)]) for kind in kinds]
    mesh = shop(*routes)
    for stronger in reversed(routes):
        (winner,) = on_port(mesh, 9000).routes
        assert winner.name == stronger["metadata"]["name"]
        assert mesh.conditions(stronger)["Accepted"].status
        if stronger is not routes[0]:
            assert mesh.conditions(routes[0])["Accepted"].reason == "Conflicted"
        mesh.delete(stronger)


def test_the_oldest_tcp_route_has_the_port_and_all_are_accepted() -> None:
    old = route("TCPRoute", "z-old", created="2025-01-01T00:00:00Z", parents=[to_service(port=9090)])
    new = route("TCPRoute", "a-new", created="2026-01-01T00:00:00Z", parents=[to_service(port=9090)])
    mesh = shop(new, old)
    assert [each.name for each in on_port(mesh, 9090).routes] == ["z-old"]
    assert mesh.conditions(new)["Accepted"].status
    assert "older" in mesh.conditions(new)["Accepted"].message


def test_http_routes_come_oldest_first_and_consumers_have_their_own() -> None:
    mesh = shop(
        route(name="b", created="2026-01-01T00:00:00Z"),
        route(name="c", created="2025-01-01T00:00:00Z"),
        route(name="a", created="2026-01-01T00:00:00Z"),
        route(name="theirs", namespace="visitors", parents=[to_service(namespace="shop")], rules=[{}]),
    )
    assert [(each.name, each.clients) for each in on_port(mesh).routes] == [
        ("c", ""), ("a", ""), ("b", ""), ("theirs", "visitors"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("parents", "permitted"),
    [
        ([to_service("web", namespace="shop")], True),
        ([to_service("web", namespace="shop", port=80), to_service("web", namespace="shop", port=8080)], True),
        ([to_service("web", namespace="shop"), to_service("own", namespace="visitors")], False),
        ([to_service("own", namespace="visitors")], False),
    ],
)
def test_a_consumer_needs_no_grant_for_what_its_clients_dial(parents: list[Object], permitted: bool) -> None:
    theirs = route(name="theirs", namespace="visitors", parents=parents)
    theirs["spec"]["rules"] = [{"backendRefs": [backend(namespace="shop")]}]
    mesh = shop(service("own", namespace="visitors"), theirs)
    said = mesh.compiler.wanted_status(key_of(theirs)).parents or ()
    reasons = {each.reason for parent in said for each in parent.conditions if each.type == "ResolvedRefs"}
    assert reasons == ({"ResolvedRefs"} if permitted else {"RefNotPermitted"})


def test_grpc_matches() -> None:
    given = {"method": {"service": "shop.Catalog", "method": "Get"}, "headers": [{"name": "A", "value": "b"}]}
    mesh = shop(route("GRPCRoute", rules=[{"matches": [given], "name": "one"}], version="v1"))
    (found,) = on_port(mesh, 7070).routes
    assert found.grpc is not None
    assert found.grpc[0].matches == (GrpcMatch("shop.Catalog", "Get", headers=(ValueMatch("a", "b"),)),)
    assert found.grpc[0].name == "one"


def test_tls_routes_keep_their_names() -> None:
    mesh = shop(route("TLSRoute", version="v1alpha2", hostnames=["a.example", "*.b.example"]))
    (found,) = on_port(mesh, 443).routes
    assert found.tls is not None
    assert found.tls[0].hostnames == ("a.example", "*.b.example")


def test_a_service_without_a_waypoint_accepts_routes_and_says_that_nobody_follows_them() -> None:
    given = route()
    mesh = Mesh(namespace(), service("web", ports=PORTS), given)
    said = mesh.conditions(given)
    assert said["Accepted"].status
    assert not said["ResolvedWaypoints"].status
    assert "no effect" in said["ResolvedWaypoints"].message
    mesh.apply(gateway(), service("web", metadata=LABEL, ports=PORTS))
    assert mesh.conditions(given)["ResolvedWaypoints"].message == "followed by shop/gate"


def test_a_waypoint_is_no_parent_and_other_gateways_are_not_ours() -> None:
    ours = route(parents=[{"name": "gate"}])
    mesh = shop(ours)
    assert mesh.conditions(ours)["Accepted"].reason == "NotAllowedByListeners"
    mesh.apply(gateway(class_name="nginx"))
    assert mesh.compiler.wanted_status(next(iter(mesh.compiler.index.waypoints.routes))).parents == ()


def test_only_what_is_concerned_is_looked_at_again() -> None:
    mesh = shop(route(), service("other"), route(name="elsewhere", rules=[{}], parents=[to_service("other")]))
    examined = {key.name for key in mesh.apply(route(rules=[{}])).examined}
    assert examined == {"route", "web"}
    changed = mesh.apply(route(rules=[{}]) | {"status": {"parents": []}})
    assert {key.name for key in changed.examined} == {"route"}
    assert changed.routing.changed == ()
