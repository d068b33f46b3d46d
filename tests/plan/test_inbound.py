"""What becomes of a CONNECT and of a plain connection: statuses, reasons, and what is dialled."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from mesh.model.identity import SpiffeId
from mesh.model.policy import Action, Authorization, Clause, Match, MatchKind, PolicyScope, Rule, StringMatch
from mesh.model.state import MeshState
from mesh.model.workload import (
    ApplicationTunnel,
    PolicyKey,
    ServiceKey,
    TunnelApplicationProtocol,
    Visibility,
    Workload,
    WorkloadUid,
)
from mesh.policy.evaluate import Permit
from tests.model.building import at, gateway, mesh, pod, service
from ztunnel.plan.inbound import Connect, plan_inbound, plan_plaintext
from ztunnel.plan.plan import Answer, Deliver, Flag, InboundPlan

WEB = ServiceKey("ns1/web.ns1.svc.cluster.local")
OWN_POD = pod("server", "10.0.0.2", services={WEB: {}})
CLIENT = pod("client", "10.0.0.1", service_account="client")
SERVICE = service("web", "10.10.0.1")


def connect(authority: str, method: str = "CONNECT", local: str = "10.0.0.2:15008", **headers: str) -> Connect:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Connect(method, authority, named, at(local), at("10.0.0.1:40000"), CLIENT.identity)


def decide(request: Connect, *things: Any, own: Workload = OWN_POD) -> InboundPlan:
    return plan_inbound(mesh(own, CLIENT, SERVICE, *things), own.uid, request)


def delivered(decision: InboundPlan) -> Deliver:
    assert isinstance(decision, Deliver), decision
    return decision


def status(decision: InboundPlan) -> int:
    assert isinstance(decision, Answer), decision
    assert decision.reason
    return decision.status


# --- what is delivered


@pytest.mark.parametrize("authority", ["10.0.0.2:8080", "web.ns1.svc.cluster.local:80", "WEB.ns1.svc.cluster.local:80"])
def test_the_pods_address_and_its_services_hostname_lead_to_the_connections_own_address(
    authority: str,
) -> None:
    assert str(delivered(decide(connect(authority))).address) == "10.0.0.2:8080"


def test_an_ipv6_authority_may_be_spelt_differently() -> None:
    own = pod("server", "fd00::2")
    request = connect("[FD00:0:0:0:0:0:0:2]:80", local="[fd00::2]:15008")
    assert str(delivered(decide(request, own=own)).address) == "[fd00::2]:80"


def test_a_named_target_port_is_the_pods_own() -> None:
    own = pod("server", "10.0.0.2", services={WEB: {80: 1234}})
    state = mesh(own, service("web", "10.10.0.1", mapping={80: 0}))
    decision = plan_inbound(state, own.uid, connect("web.ns1.svc.cluster.local:80"))
    assert delivered(decision).address.port == 1234


# --- statuses


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (connect("10.0.0.2:80", method="GET"), 400),
        (connect(""), 400),
        (connect("10.0.0.2"), 400),
        (connect(":80"), 400),
        (connect("10.0.0.2:"), 400),
        (connect("10.0.0.2:0"), 400),
        (connect("10.0.0.2:65536"), 400),
        (connect("10.0.0.2:+80"), 400),
        (connect("10.0.0.2:٨٠"), 400),
        (connect("fd00::2:80"), 400),
        (connect("[fd00::2]80"), 400),
        (connect("[10.0.0.2]:80"), 400),
        (connect("10.0.0.3:80"), 400),
        (connect("127.0.0.1:80"), 400),
        (connect("[::1]:80"), 400),
        (connect("0.0.0.0:80"), 400),
        (connect("10.10.0.1:80"), 400),  # its own service, but it is no waypoint
        (connect("unknown.example.com:80"), 503),
        (connect("web.ns1.svc.cluster.local:81"), 503),
        (connect("10.0.0.2:15001"), 503),
        (connect("10.0.0.2:15006"), 503),
        (connect("10.0.0.2:15008"), 503),
        (connect("10.0.0.2:15053"), 503),
    ],
)
def test_requests_that_are_answered_and_not_dialled(request_: Connect, expected: int) -> None:
    assert status(decide(request_)) == expected


def test_a_service_that_the_pod_is_no_endpoint_of() -> None:
    assert status(decide(connect("other.ns1.svc.cluster.local:80"), service("other", "10.10.0.7"))) == 400


def test_a_service_that_is_hidden_from_the_pods_namespace_is_unknown() -> None:
    hidden = service("hidden", "10.10.0.7", namespace="ns2", visibility=Visibility.NAMESPACE)
    assert status(decide(connect("hidden.ns2.svc.cluster.local:80"), hidden)) == 503


def test_a_pod_that_the_mesh_does_not_know() -> None:
    gone = WorkloadUid("Kubernetes//Pod/ns1/gone")
    assert status(plan_inbound(MeshState(), gone, connect("10.0.0.2:80"))) == 503
    assert status(plan_plaintext(MeshState(), gone, at("10.0.0.2:80"), at("10.0.0.1:1"))) == 503


# --- policy


def policy(principal: str, **fields: Any) -> Authorization:
    match = Match(principals=(StringMatch(MatchKind.EXACT, principal),))
    given = {"scope": PolicyScope.NAMESPACE, "action": Action.ALLOW} | fields
    return Authorization("p", "ns1", rules=(Rule((Clause((match,)),)),), **given)


def test_a_denied_peer_gets_401_and_the_reason_names_the_policy() -> None:
    decision = decide(connect("10.0.0.2:80"), policy("cluster.local/ns/ns1/sa/somebody-else"))
    assert status(decision) == 401
    assert isinstance(decision, Answer)
    assert decision.flag is Flag.DENY
    assert "ns1/p" in decision.reason


def test_an_allowed_peer_gets_a_permit_for_what_is_dialled() -> None:
    decision = delivered(decide(connect("10.0.0.2:80"), policy("cluster.local/ns/ns1/sa/client")))
    assert isinstance(decision.permit, Permit)
    assert decision.permit.facts.destination == decision.address
    assert decision.permit.facts.peer == CLIENT.identity
    assert decision.permit.policy == "ns1/p"


def test_policy_sees_the_apps_port_not_the_services() -> None:
    rule = Rule((Clause((Match(destination_ports=(8080,)),)),))
    only_8080 = Authorization("p", "ns1", PolicyScope.NAMESPACE, Action.ALLOW, (rule,))
    assert delivered(decide(connect("web.ns1.svc.cluster.local:80"), only_8080)).address.port == 8080
    assert status(decide(connect("10.0.0.2:80"), only_8080)) == 401


def test_a_policy_that_has_not_been_delivered_denies() -> None:
    own = pod("server", "10.0.0.2", authorization_policies=(PolicyKey("ns1/late"),))
    for decision in (
        decide(connect("10.0.0.2:80"), own=own),
        plan_plaintext(mesh(own), own.uid, at("10.0.0.2:80"), at("10.0.0.1:1")),
    ):
        assert status(decision) == 401
        assert "ns1/late" in decision.reason  # type: ignore[union-attr]


# --- plain text


def test_plain_connections_are_delivered_where_they_went_with_the_clients_address() -> None:
    decision = delivered(plan_plaintext(mesh(OWN_POD, CLIENT), OWN_POD.uid, at("10.0.0.2:80"), at("10.0.0.1:4000")))
    assert (str(decision.address), str(decision.client)) == ("10.0.0.2:80", "10.0.0.1:4000")
    assert decision.source_workload == CLIENT.uid
    assert decision.permit.facts.peer is None


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
def test_plain_connections_never_reach_the_proxys_ports(port: int) -> None:
    assert status(plan_plaintext(mesh(OWN_POD), OWN_POD.uid, at(f"10.0.0.2:{port}"), at("10.0.0.1:1"))) == 503


def test_strict_mutual_tls_refuses_plain_text() -> None:
    match = Match(not_principals=(StringMatch(MatchKind.PRESENCE),))
    strict = Authorization("strict", "root", PolicyScope.GLOBAL, Action.DENY, (Rule((Clause((match,)),)),))
    state = mesh(OWN_POD, CLIENT, strict)
    assert status(plan_plaintext(state, OWN_POD.uid, at("10.0.0.2:80"), at("10.0.0.1:1"))) == 401
    delivered(plan_inbound(state, OWN_POD.uid, connect("10.0.0.2:80")))


# --- what the peer claims


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ('for="10.0.0.1:5555"', "10.0.0.1:5555"),
        ('for="10.0.0.66:5555"', "10.0.0.1:0"),
        ("for=unknown", "10.0.0.1:0"),
        ("", "10.0.0.1:0"),
        ("\0;;=,", "10.0.0.1:0"),
    ],
)
def test_the_apps_port_is_believed_but_no_other_address_than_the_tunnels(forwarded: str, client: str) -> None:
    assert str(delivered(decide(connect("10.0.0.2:80", forwarded=forwarded))).client) == client


@pytest.mark.parametrize(
    ("host", "expected"),
    [("web.ns1.svc.cluster.local", "web.ns1.svc.cluster.local"), ("other.ns1.svc.cluster.local", ""), ("nope", "")],
)
def test_a_claimed_service_is_a_label_only_when_it_is_the_pods_own(host: str, expected: str) -> None:
    decision = decide(connect("10.0.0.2:80", forwarded=f'for="10.0.0.1:1";host={host}'), service("other", "10.10.0.7"))
    assert delivered(decision).service == expected


def test_the_source_workload_is_the_one_at_that_address_with_that_identity() -> None:
    assert delivered(decide(connect("10.0.0.2:80"))).source_workload == CLIENT.uid
    assert delivered(decide(connect("10.0.0.2:80", x_forwarded_network="far"))).source_workload is None
    request = Connect("CONNECT", "10.0.0.2:80", {}, at("10.0.0.2:15008"), at("10.0.0.1:1"), SpiffeId("td", "x", "y"))
    assert delivered(decide(request)).source_workload is None


# --- a pod that is a waypoint

WAYPOINT_KEY = ServiceKey("ns1/waypoint.ns1.svc.cluster.local")
WAYPOINT_SERVICE = service("waypoint", "10.10.0.2", mapping={15008: 15008})
BY_SERVICE, BY_ADDRESS = gateway("10.10.0.2"), gateway("10.0.0.3")


def waypoint(**fields: Any) -> Workload:
    return pod("waypoint-1", "10.0.0.3", services={WAYPOINT_KEY: {}}, **fields)


def through_waypoint(authority: str, *things: Any, own: Workload | None = None) -> InboundPlan:
    own = own or waypoint()
    request = connect(authority, local="10.0.0.3:15008")
    return plan_inbound(mesh(own, WAYPOINT_SERVICE, CLIENT, *things), own.uid, request)


@pytest.mark.parametrize("binding", [BY_SERVICE, BY_ADDRESS, gateway(WAYPOINT_KEY)])
def test_a_waypoint_takes_what_is_for_pods_and_services_bound_to_it(binding: Any) -> None:
    bound = pod("server", "10.0.0.2", waypoint=binding), service("web", "10.10.0.1", waypoint=binding)
    for authority in ("10.0.0.2:8080", "10.10.0.1:80", "web.ns1.svc.cluster.local:80"):
        assert str(delivered(through_waypoint(authority, *bound)).address) == "10.0.0.3:8080"


@pytest.mark.parametrize(
    ("authority", "things"),
    [
        ("10.0.0.2:8080", [OWN_POD, SERVICE]),  # bound to nothing
        ("10.10.0.1:80", [OWN_POD, SERVICE]),
        ("10.10.0.1:80", [pod("server", "10.0.0.2", waypoint=BY_SERVICE), SERVICE]),  # the other way
        ("10.0.0.2:8080", [OWN_POD, service("web", "10.10.0.1", waypoint=BY_SERVICE)]),
        ("10.0.0.2:8080", [pod("server", "10.0.0.2", waypoint=gateway("10.0.0.77"))]),
        ("9.9.9.9:80", []),
    ],
)
def test_a_waypoint_takes_nothing_else(authority: str, things: list[Any]) -> None:
    assert status(through_waypoint(authority, *things)) == 400


def test_a_waypoint_behind_an_application_tunnel_gets_the_proxy_protocol() -> None:
    own = waypoint(application_tunnel=ApplicationTunnel(TunnelApplicationProtocol.PROXY, 15088))
    decision = delivered(through_waypoint("10.10.0.1:80", service("web", "10.10.0.1", waypoint=BY_SERVICE), own=own))
    assert str(decision.address) == "10.0.0.3:15088"
    header = decision.preamble
    assert header[:12] == b"\r\n\r\n\0\r\nQUIT\n"
    assert header[12:14] == b"\x21\x11"
    assert struct.unpack("!H", header[14:16])[0] == len(header) - 16
    assert header[16:24] == bytes([10, 0, 0, 1, 10, 10, 0, 1])
    assert struct.unpack("!HH", header[24:28]) == (0, 80)
    uri = str(CLIENT.identity).encode()
    assert header[28:] == b"\xd0" + struct.pack("!H", len(uri)) + uri


def test_an_application_tunnel_without_protocol_changes_only_the_port() -> None:
    own = waypoint(application_tunnel=ApplicationTunnel(TunnelApplicationProtocol.NONE, 15088))
    decision = delivered(through_waypoint("9.9.9.9:80", own=own))
    assert (str(decision.address), decision.preamble) == ("10.0.0.3:15088", b"")
