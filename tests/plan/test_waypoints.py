"""Waypoints of pods and services: by which of them a connection goes, and what may go round them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mesh.hbone.connect_headers import SOURCE_IDENTITY
from mesh.model.identity import SpiffeId
from mesh.model.policy import Action, Authorization, Clause, Match, PolicyScope, Rule, ServiceAccountMatch
from mesh.model.workload import PolicyKey, ServiceKey, WaypointBinding, WaypointFailure, Workload
from tests.model.building import at, gateway, mesh, pod, service
from ztunnel.plan.inbound import Connect, plan_inbound, plan_plaintext
from ztunnel.plan.outbound import plan_outbound
from ztunnel.plan.plan import Answer, Deliver, Flag, InboundPlan, OutboundPlan, PassThrough, Refuse, Tunnel

NONE, WORKLOAD, ALL = WaypointBinding
UNSPECIFIED, CLOSED, OPEN = WaypointFailure

WEB = ServiceKey("ns1/web.ns1.svc.cluster.local")
GUARD = ServiceKey("ns1/guard.ns1.svc.cluster.local")
OTHER_GUARD = ServiceKey("ns1/other.ns1.svc.cluster.local")
CLIENT = pod("client", "10.0.0.1", service_account="client")
GUARD_POD = pod("guard-1", "10.0.0.7", service_account="guard", services={GUARD: {15008: 15008}})
OTHER_POD = pod("other-1", "10.0.0.8", service_account="other", services={OTHER_GUARD: {15008: 15008}})
GUARDS = (
    GUARD_POD,
    OTHER_POD,
    service("guard", "10.10.0.7", mapping={15008: 15008}),
    service("other", "10.10.0.8", mapping={15008: 15008}),
)
BY_GUARD, BY_OTHER = gateway(GUARD), gateway(OTHER_GUARD)
WAYPOINT, STRANGER = GUARD_POD.identity, SpiffeId("cluster.local", "ns9", "stranger")


def server(binding: WaypointBinding = NONE, failure: WaypointFailure = CLOSED, **fields: Any) -> Workload:
    bound = {"waypoint": BY_GUARD, "waypoint_binding": binding, "waypoint_failure": failure} if binding else {}
    return pod("server", "10.0.0.2", service_account="server", **{"services": {WEB: {80: 8080}}, **bound, **fields})


def web(failure: WaypointFailure | None = None, **fields: Any) -> Any:
    bound = {"waypoint": BY_GUARD, "waypoint_failure": failure} if failure is not None else {}
    return service("web", "10.10.0.1", mapping={80: 8080}, **{**bound, **fields})


# --- the client's side


def dialled(address: str, *things: Any, avoid: frozenset[Any] = frozenset()) -> OutboundPlan:
    return plan_outbound(mesh(CLIENT, *things), CLIENT.uid, at(address), lambda: 0.0, avoid)


def way(plan: OutboundPlan) -> str:
    if isinstance(plan, Tunnel):
        return f"{'waypoint' if plan.via_waypoint else 'direct'} {plan.dial} {plan.authority}"
    return "pass" if isinstance(plan, PassThrough) else "refused"


VIP, POD = "10.10.0.1:80", "10.0.0.2:8080"
BY_SERVICE, BY_POD = f"waypoint 10.0.0.7:15008 {VIP}", f"waypoint 10.0.0.7:15008 {POD}"
DIRECT = f"direct 10.0.0.2:15008 {POD}"
OUTBOUND = {  # the pod, the service; the way by the service's address, by the pod's
    "nothing bound": (server(), web(), DIRECT, DIRECT),
    "service": (server(), web(CLOSED), BY_SERVICE, DIRECT),
    "service of istiod": (server(), web(UNSPECIFIED), BY_SERVICE, DIRECT),
    "workload": (server(WORKLOAD), web(), DIRECT, BY_POD),
    "all": (server(ALL), web(), BY_SERVICE, BY_POD),
    "workload of istiod": (server(waypoint=BY_GUARD), web(), DIRECT, BY_POD),
}


@pytest.mark.parametrize(("own", "its_service", "by_service", "by_pod"), OUTBOUND.values(), ids=OUTBOUND)
def test_the_address_that_is_dialled_decides_unless_the_waypoint_takes_all(
    own: Workload, its_service: Any, by_service: str, by_pod: str
) -> None:
    assert way(dialled(VIP, own, its_service, *GUARDS)) == by_service
    assert way(dialled(POD, own, its_service, *GUARDS)) == by_pod


def test_an_endpoints_waypoint_gets_the_services_address_and_name() -> None:
    plan = dialled(VIP, server(ALL), web(), *GUARDS)
    assert isinstance(plan, Tunnel)
    assert (plan.authority, plan.service, plan.workload) == (VIP, "web.ns1.svc.cluster.local", GUARD_POD.uid)
    assert plan.identities == {WAYPOINT}


def test_a_services_own_waypoint_comes_before_its_endpoints() -> None:
    plan = dialled(VIP, server(ALL), web(CLOSED, waypoint=BY_OTHER), *GUARDS)
    assert way(plan) == f"waypoint 10.0.0.8:15008 {VIP}"


def test_a_service_of_several_identities_goes_by_each_endpoints_own_waypoint() -> None:
    free = pod("free", "10.0.0.3", service_account="free", services={WEB: {80: 8080}})
    state = mesh(CLIENT, server(ALL), free, web(), *GUARDS)
    ways = {way(plan_outbound(state, CLIENT.uid, at(VIP), chance)) for chance in (lambda: 0.0, lambda: 0.9)}
    assert ways == {BY_SERVICE, "direct 10.0.0.3:15008 10.0.0.3:8080"}


@pytest.mark.parametrize("guards", [(), (replace(GUARD_POD, services={}), GUARDS[2])], ids=["missing", "without pods"])
@pytest.mark.parametrize(
    ("own", "its_service", "address"),
    [
        (server(), web(CLOSED), VIP),
        (server(WORKLOAD), web(), POD),
        (server(ALL), web(), VIP),
        (server(ALL), web(), POD),
    ],
)
def test_a_waypoint_that_is_not_there_refuses_and_is_named(
    own: Workload, its_service: Any, address: str, guards: Any
) -> None:
    plan = dialled(address, own, its_service, *guards)
    assert isinstance(plan, Refuse)
    assert "guard" in plan.reason or "waypoint of" in plan.reason
    assert own.uid in plan.reason or WEB in plan.reason


@pytest.mark.parametrize(
    ("own", "its_service", "address"),
    [
        (server(), web(OPEN), VIP),
        (server(WORKLOAD, OPEN), web(), POD),
        (server(ALL, OPEN), web(), VIP),
        (server(ALL, OPEN), web(OPEN), VIP),
    ],
)
def test_failure_mode_open_does_without_a_waypoint_only_while_there_is_none(
    own: Workload, its_service: Any, address: str
) -> None:
    assert way(dialled(address, own, its_service)) == DIRECT
    assert way(dialled(address, own, its_service, *GUARDS)).startswith("waypoint")
    assert way(dialled(address, own, its_service, *GUARDS, avoid=frozenset({GUARD_POD.uid}))) == DIRECT


def test_a_pod_reaches_itself_without_its_waypoint() -> None:
    own = server(ALL)
    assert way(plan_outbound(mesh(own, web(), *GUARDS), own.uid, at(POD), lambda: 0.0)) == "pass"
    assert way(plan_outbound(mesh(own, web(), *GUARDS), own.uid, at(VIP), lambda: 0.0)) == "pass"


# --- the destination's side


def arrives(
    own: Workload,
    its_service: Any,
    peer: SpiffeId | None,
    *things: Any,
    port: int = 8080,
    headers: dict[str, str] | None = None,
) -> InboundPlan:
    """At the server's own address; without a peer in plain text."""
    state = mesh(CLIENT, own, its_service, *(things or GUARDS))
    remote = at("10.0.0.7:40000" if peer == WAYPOINT else "10.0.0.1:40000")
    if peer is None:
        return plan_plaintext(state, own.uid, at(f"10.0.0.2:{port}"), remote)
    return plan_inbound(
        state, own.uid, Connect("CONNECT", f"10.0.0.2:{port}", headers or {}, at("10.0.0.2:15008"), remote, peer)
    )


IN = {  # the pod, the service; let in: a client's tunnel, plain text, plain text to another port
    "nothing bound": (server(), web(), True, True, True),
    "service": (server(), web(CLOSED), True, False, True),
    "service, open": (server(), web(OPEN), True, True, True),
    "service of istiod": (server(), web(UNSPECIFIED), True, True, True),
    "weighted": (server(), web(CLOSED, waypoint=None, weighted_waypoints=()), True, True, True),
    "workload": (server(WORKLOAD), web(CLOSED), False, False, False),
    "workload of a free service": (server(WORKLOAD), web(), True, False, False),
    "workload without a service": (server(WORKLOAD, services={}), web(), False, False, False),
    "workload, open": (server(WORKLOAD, OPEN, services={}), web(), True, True, True),
    "workload of istiod": (server(waypoint=BY_GUARD), web(), True, True, True),
    "all": (server(ALL), web(), False, False, False),
    "all, nothing said": (server(ALL, UNSPECIFIED), web(), False, False, False),
    "all, open": (server(ALL, OPEN), web(), True, True, True),
    "all, open, service closed": (server(ALL, OPEN), web(CLOSED), True, False, True),
}


@pytest.mark.parametrize(("own", "its_service", "tunnel", "plain", "elsewhere"), IN.values(), ids=IN)
def test_what_comes_round_a_waypoint(
    own: Workload, its_service: Any, tunnel: bool, plain: bool, elsewhere: bool
) -> None:
    decisions = (
        arrives(own, its_service, STRANGER),
        arrives(own, its_service, None),
        arrives(own, its_service, None, port=9090),
    )
    assert [isinstance(each, Deliver) for each in decisions] == [tunnel, plain, elsewhere]
    for refused in (each for each in decisions if isinstance(each, Answer)):
        assert (refused.status, refused.flag) == (401, Flag.DENY)
        assert f"is reached only through its waypoint {GUARD}" in refused.reason


@pytest.mark.parametrize(("own", "its_service"), [(own, each) for own, each, *_ in IN.values()], ids=IN)
def test_what_comes_from_the_waypoint_is_let_in(own: Workload, its_service: Any) -> None:
    assert isinstance(arrives(own, its_service, WAYPOINT), Deliver)


def test_another_waypoint_is_a_stranger() -> None:
    assert isinstance(arrives(server(ALL), web(), OTHER_POD.identity), Answer)


def test_a_pods_service_may_have_another_waypoint_than_the_pod() -> None:
    for guard in (WAYPOINT, OTHER_POD.identity):
        assert isinstance(arrives(server(ALL), web(CLOSED, waypoint=BY_OTHER), guard), Deliver)


def test_without_its_waypoint_a_pod_refuses_and_says_so() -> None:
    decision = arrives(server(ALL), web(), STRANGER, CLIENT)
    assert isinstance(decision, Answer)
    assert "(which has no pods now)" in decision.reason


# --- whom a waypoint speaks for

FORWARDED = 'for="10.0.0.1:5555"'
SAYS = {"x-ambit-source-identity": str(CLIENT.identity), "forwarded": FORWARDED}


def test_the_header_has_its_name() -> None:
    assert SOURCE_IDENTITY == "x-ambit-source-identity"


@pytest.mark.parametrize(("own", "its_service"), [(server(ALL), web()), (server(), web(CLOSED)), (server(), web(OPEN))])
def test_the_waypoints_client_is_the_source(own: Workload, its_service: Any) -> None:
    decision = arrives(own, its_service, WAYPOINT, headers=SAYS)
    assert isinstance(decision, Deliver)
    assert decision.permit.facts.peer == CLIENT.identity
    assert str(decision.client) == "10.0.0.1:5555"
    assert decision.source_workload == CLIENT.uid


@pytest.mark.parametrize(
    ("own", "its_service", "peer"),
    [
        (server(), web(), STRANGER),
        (server(), web(CLOSED), STRANGER),
        (server(), web(CLOSED), OTHER_POD.identity),
        (server(), web(UNSPECIFIED), WAYPOINT),
        (server(waypoint=BY_GUARD), web(), WAYPOINT),
    ],
)
def test_nobody_else_is_believed(own: Workload, its_service: Any, peer: SpiffeId) -> None:
    decision = arrives(
        own,
        its_service,
        peer,
        headers={"x-ambit-source-identity": "spiffe://cluster.local/ns/a/sa/forged", "forwarded": 'for="10.7.7.7:1"'},
    )
    assert isinstance(decision, Deliver)
    assert decision.permit.facts.peer == peer
    assert decision.client.ip != "10.7.7.7"


def test_a_waypoint_that_says_nothing_is_the_source_itself() -> None:
    decision = arrives(server(ALL), web(), WAYPOINT)
    assert isinstance(decision, Deliver)
    assert (decision.permit.facts.peer, decision.source_workload) == (WAYPOINT, GUARD_POD.uid)


@pytest.mark.parametrize(
    "headers",
    [
        {**SAYS, "x-ambit-source-identity": "client"},
        {**SAYS, "x-ambit-source-identity": ""},
        {**SAYS, "forwarded": "for=unknown"},
        {"x-ambit-source-identity": str(CLIENT.identity)},
    ],
)
def test_half_a_client_is_none(headers: dict[str, str]) -> None:
    decision = arrives(server(ALL), web(), WAYPOINT, headers=headers)
    assert isinstance(decision, Answer)
    assert decision.status == 400


@pytest.mark.parametrize(("account", "allowed"), [("client", True), ("guard", False)])
def test_policies_see_the_client_and_a_denial_names_it(account: str, allowed: bool) -> None:
    match = Match(service_accounts=(ServiceAccountMatch("ns1", account),))
    policy = Authorization("p", "ns1", PolicyScope.WORKLOAD_SELECTOR, Action.ALLOW, (Rule((Clause((match,)),)),))
    own = server(ALL, authorization_policies=(PolicyKey("ns1/p"),))
    decision = arrives(own, web(), WAYPOINT, *GUARDS, policy, headers=SAYS)
    assert isinstance(decision, Deliver) is allowed
    if isinstance(decision, Answer):
        assert decision.facts is not None
        assert (decision.facts.peer, decision.facts.source) == (CLIENT.identity, "10.0.0.1")
