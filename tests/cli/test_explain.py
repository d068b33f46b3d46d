"""`ambit explain` over meshes that are values: which way, which policies, which verdict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from cli.errors import CommandFailed
from cli.explain import names, words
from cli.explain.answer import Explanation, Request, Verdict
from cli.explain.views import NodeView
from cli.explain.walk import walk
from cli.home import NoAnswer
from mesh.model.address import canonical
from mesh.model.http_policy import HttpAction, HttpPolicy, Operation, PolicyRule
from mesh.model.policy import Action, Authorization, Clause, Match, MatchKind, PolicyScope, Rule, StringMatch
from mesh.model.routing import (
    AppProtocol,
    Backend,
    Filters,
    Gateway,
    HttpRule,
    PortRouting,
    Redirect,
    Route,
    ServiceRouting,
)
from mesh.model.state import MeshState
from mesh.model.update import MeshUpdate
from mesh.model.workload import (
    GatewayAddress,
    NetworkAddress,
    PolicyKey,
    PortMapping,
    Service,
    ServiceKey,
    TunnelProtocol,
    WaypointBinding,
    WaypointFailure,
    Workload,
    WorkloadUid,
)
from mesh.wire.routing import Routing
from tests.cli.ambit import ambit
from waypoint.plan.world import Own, World

SHOP = ServiceKey("shop/shop.shop.svc.cluster.local")
WP = ServiceKey("shop/wp.shop.svc.cluster.local")
PLAIN = TunnelProtocol.NONE


def pod(name: str, ip: str, *services: ServiceKey, **more: object) -> Workload:
    made = Workload(
        WorkloadUid(f"Kubernetes//Pod/shop/{name}"),
        name,
        "shop",
        addresses=(canonical(ip),),
        node="node1",
        service_account=name,
        tunnel_protocol=TunnelProtocol.HBONE,
        services={key: (PortMapping(80, 8080),) for key in services},
    )
    return replace(made, **more)  # type: ignore[arg-type]


def service(key: ServiceKey, ip: str, **more: object) -> Service:
    namespace, _, host = key.partition("/")
    addresses = (NetworkAddress("", canonical(ip)),)
    made = Service(host.partition(".")[0], namespace, host, addresses, (PortMapping(80, 8080),))
    return replace(made, **more)  # type: ignore[arg-type]


WEB, APP, WAYPOINT = pod("web", "10.1.0.1"), pod("app", "10.1.0.2", SHOP), pod("wp", "10.1.0.3", WP)
WAYPOINT = replace(WAYPOINT, services={WP: (PortMapping(15008, 15008),)})
BOUND = {"waypoint": GatewayAddress(WP, 15008), "waypoint_failure": WaypointFailure.CLOSED}


@dataclass
class Mesh:
    """One node that knows these, and one waypoint with this routing."""

    workloads: Iterable[Workload] = (WEB, APP)
    services: Iterable[Service] = (service(SHOP, "10.96.0.1"),)
    policies: Iterable[Authorization] = ()
    routing: Iterable[Routing] = ()
    silent: bool = False
    outside: frozenset[str] = field(default_factory=frozenset)  # pods that ztunnel does not serve

    @property
    def state(self) -> MeshState:
        update = MeshUpdate(tuple(self.workloads), tuple(self.services), tuple(self.policies))
        return MeshState(update)

    def node(self, name: str) -> NodeView:
        served = {f"shop/{each.name}": "Up" for each in self.workloads if each.name not in self.outside}
        return NodeView(name, self.state, served)

    def waypoint(self, pod: Workload) -> World:
        if self.silent:
            raise NoAnswer("waypoint pod shop/wp does not answer")
        world = World(Own("shop", "wp", pod.uid, identity=pod.identity))
        world.apply_mesh(self.state.snapshot())
        world.apply_routing({each.key: each for each in self.routing}, ())
        world.known = True
        return world

    def why_enrolled(self, namespace: str, name: str) -> str:
        return "a label"

    def why_bound(self, kind: str, namespace: str, name: str) -> str:
        return "its label"

    def explain(self, word: str = "shop", source: Workload = WEB, **request: object) -> Explanation:
        host, port = names.split_port(word)
        meant = names.destination(self.state, source, host, port)
        asked = Request(**request) if request else Request()  # type: ignore[arg-type]
        return walk(self, source, word, meant, asked)


def text(found: Explanation) -> str:
    return "\n".join(words.sentences(found))


def policy(action: Action, *principals: str) -> Authorization:
    match = Match(principals=tuple(StringMatch(MatchKind.EXACT, each) for each in principals))
    rule = Rule((Clause((match,)),))
    return Authorization("rule", "shop", PolicyScope.NAMESPACE, action, (rule,))


def through_waypoint(*routes: Route, policies: tuple[HttpPolicy, ...] = (), **more: object) -> Mesh:
    named = tuple(each.policy for each in policies)
    port = PortRouting(80, AppProtocol.HTTP, routes)
    gateway = Gateway("shop/wp")
    mesh = Mesh(
        (WEB, APP, WAYPOINT),
        (service(SHOP, "10.96.0.1", **BOUND), service(WP, "10.96.0.9", ports=(PortMapping(15008, 15008),))),
        routing=(gateway, ServiceRouting("shop/wp", SHOP, (port,), named), *policies),
    )
    return replace(mesh, **more)  # type: ignore[arg-type]


# --- without a waypoint


def test_a_tunnel_straight_to_the_pod() -> None:
    found = Mesh().explain()
    assert found.verdict is Verdict.ALLOWED
    assert "a tunnel straight to pod shop/app on node1" in text(found)
    assert str(WEB.identity) in text(found)


@pytest.mark.parametrize(
    ("action", "principal", "verdict"),
    [
        (Action.ALLOW, "cluster.local/ns/shop/sa/web", Verdict.ALLOWED),
        (Action.ALLOW, "cluster.local/ns/shop/sa/other", Verdict.DENIED),
        (Action.DENY, "cluster.local/ns/shop/sa/web", Verdict.DENIED),
        (Action.DENY, "cluster.local/ns/shop/sa/other", Verdict.ALLOWED),
    ],
)
def test_policies_of_connections_are_shown_with_their_clause(action: Action, principal: str, verdict: Verdict) -> None:
    found = Mesh(policies=[policy(action, principal)]).explain()
    assert found.verdict is verdict
    assert f"{action.name} shop/rule" in text(found)
    assert principal in text(found)


def test_a_client_outside_the_mesh_is_nobody() -> None:
    client = replace(WEB, tunnel_protocol=PLAIN)
    mesh = Mesh(
        (client, APP), policies=[policy(Action.ALLOW, "cluster.local/ns/shop/sa/web")], outside=frozenset({"web"})
    )
    found = mesh.explain(source=client)
    assert found.verdict is Verdict.DENIED
    assert "is not in the mesh" in text(found)
    assert "in plain text" in text(found)


def test_a_destination_that_its_node_does_not_serve() -> None:
    found = Mesh(outside=frozenset({"app"})).explain()
    assert found.verdict is Verdict.DENIED
    assert "pod shop/app is not served by the ztunnel of node1" in found.reason


def test_endpoints_that_fare_differently_are_all_shown() -> None:
    selected = replace(policy(Action.DENY, "cluster.local/ns/shop/sa/web"), scope=PolicyScope.WORKLOAD_SELECTOR)
    other = pod("app2", "10.1.0.4", SHOP, authorization_policies=(PolicyKey("shop/rule"),))
    found = Mesh((WEB, APP, other), policies=[selected]).explain()
    assert found.verdict is Verdict.UNKNOWN
    assert {way.verdict for way in found.ways} == {Verdict.ALLOWED, Verdict.DENIED}
    assert "it depends on which way is drawn" in found.reason


def test_a_service_without_endpoints() -> None:
    found = Mesh((WEB,)).explain()
    assert found.verdict is Verdict.DENIED


# --- through a waypoint


def test_a_route_and_its_shares() -> None:
    backends = (Backend(SHOP, 80, weight=3), Backend(error="Service shop/gone does not exist", weight=1))
    found = through_waypoint(Route("shop", "split", http=(HttpRule(backends=backends),))).explain()
    assert found.verdict is Verdict.UNKNOWN
    shares = {way.verdict: way.share for way in found.ways}
    assert shares[Verdict.ALLOWED] == pytest.approx(0.75, abs=0.05)
    assert "Service shop/gone does not exist" in text(found)
    assert "route shop/split" in text(found)


def test_the_destination_sees_the_client_and_not_the_waypoint() -> None:
    only_web = policy(Action.ALLOW, "cluster.local/ns/shop/sa/web")
    mesh = replace(through_waypoint(), policies=[only_web])
    found = mesh.explain()
    assert found.verdict is Verdict.ALLOWED, text(found)
    assert f"speaking for {WEB.identity}" in text(found)


@pytest.mark.parametrize(("path", "verdict"), [("/admin", Verdict.DENIED), ("/open", Verdict.ALLOWED)])
def test_policies_of_requests(path: str, verdict: Verdict) -> None:
    rule = PolicyRule(operations=(Operation(methods=("GET",), paths=("/admin",)),))
    deny = HttpPolicy("shop", "no-admin", action=HttpAction.DENY, rules=(rule,))
    found = through_waypoint(policies=(deny,)).explain(path=path, assumed=False)
    assert found.verdict is verdict, text(found)
    assert "DENY shop/no-admin" in text(found)


def test_a_redirect_reaches_nobody_and_is_allowed() -> None:
    redirect = Route("shop", "away", http=(HttpRule(filters=Filters(redirect=Redirect(hostname="else.example"))),))
    found = through_waypoint(redirect).explain()
    assert found.verdict is Verdict.ALLOWED
    assert "answers 302 to http://else.example" in found.reason


def test_a_service_that_the_waypoint_does_not_know() -> None:
    found = replace(through_waypoint(), routing=(Gateway("shop/wp"),)).explain()
    assert found.verdict is Verdict.DENIED
    assert "refused with 404" in text(found)


def test_a_waypoint_that_is_missing_refuses_and_open_lets_through() -> None:
    closed = replace(through_waypoint(), workloads=(WEB, APP))
    assert closed.explain().verdict is Verdict.DENIED
    assert "waypoint" in closed.explain().reason
    opened = service(SHOP, "10.96.0.1", **{**BOUND, "waypoint_failure": WaypointFailure.OPEN})
    assert replace(closed, services=(opened,)).explain().verdict is Verdict.ALLOWED


def test_round_the_waypoint() -> None:
    bound = replace(APP, waypoint=GatewayAddress(WP, 15008), waypoint_binding=WaypointBinding.ALL)
    client = replace(WEB, tunnel_protocol=PLAIN)
    mesh = replace(through_waypoint(), workloads=(client, bound, WAYPOINT), outside=frozenset({"web"}))
    found = mesh.explain("10.1.0.2:8080", source=client)
    assert found.verdict is Verdict.DENIED
    assert "is reached only through its waypoint" in found.reason


def test_a_waypoint_that_cannot_be_asked() -> None:
    found = through_waypoint(silent=True).explain()
    assert found.verdict is Verdict.UNKNOWN
    assert "does not answer" in found.reason


# --- words


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("shop", "10.96.0.1:80"),
        ("shop.shop", "10.96.0.1:80"),
        ("shop.shop.svc.cluster.local:80", "10.96.0.1:80"),
        ("shop/shop", "10.96.0.1:80"),
        ("svc/shop", "10.96.0.1:80"),
        ("app:8080", "10.1.0.2:8080"),
        ("pod/shop/app:8080", "10.1.0.2:8080"),
        ("10.1.0.2:8080", "10.1.0.2:8080"),
        ("203.0.113.7", "203.0.113.7:80"),
    ],
)
def test_what_a_word_means(word: str, address: str) -> None:
    assert str(Mesh().explain(word).asked.address) == address


@pytest.mark.parametrize("word", ["nobody", "pod/nobody", "shop:port", "svc/app"])
def test_what_means_nothing(word: str) -> None:
    with pytest.raises(CommandFailed):
        Mesh().explain(word)


def test_as_a_document() -> None:
    document = words.as_document(Mesh().explain())
    assert document["verdict"] == "allowed"
    assert [step["topic"] for step in document["ways"][0]["steps"]] == ["path", "enrolment", "policy", "deliver"]


@pytest.mark.parametrize("more", [(), ("--header", "nonsense")])
def test_a_failure_is_no_denial(tmp_path: Path, more: tuple[str, ...]) -> None:
    done = ambit("explain", "client", "server", *more, "--kubeconfig", str(tmp_path / "none"), home=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("ambit: ")
