"""Where a pod's connections go: Istio's routing vectors, and refusals where a peer would go on in plain text."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.model.identity import SpiffeId
from mesh.model.state import MeshState
from mesh.model.workload import (
    ApplicationTunnel,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    NetworkMode,
    Scope,
    ServiceKey,
    WeightedGateway,
    WorkloadStatus,
    WorkloadUid,
)
from tests.model.building import at, gateway, mesh, pod, service, update
from ztunnel.plan.outbound import plan_outbound
from ztunnel.plan.plan import Flag, OutboundPlan, PassThrough, Refuse, Tunnel

SOURCE = pod("source", "10.0.0.1", "fd00::1", node="node-a")
WEB = ServiceKey("ns1/web.ns1.svc.cluster.local")
WAYPOINT_KEY = ServiceKey("ns1/waypoint.ns1.svc.cluster.local")
WAYPOINT = service("waypoint", "10.1.0.9", mapping={15008: 15008})
WAYPOINT_POD = pod("waypoint-1", "10.0.0.9", services={WAYPOINT_KEY: {}}, service_account="waypoint")
BOUND = gateway(WAYPOINT_KEY)


def plan(state: MeshState, destination: str, chance: float = 0.0, **arguments: Any) -> OutboundPlan:
    return plan_outbound(state, SOURCE.uid, at(destination), lambda: chance, **arguments)


def short(decision: OutboundPlan) -> tuple[str, ...]:
    """Protocol, authority, address that is dialled."""
    match decision:
        case PassThrough():
            return "TCP", "-", str(decision.destination)
        case Tunnel():
            return "HBONE", decision.authority, str(decision.dial)
        case Refuse():
            return ("REFUSE",)


# --- vectors: what the mesh has, what is dialled, what is done

TARGET = pod("p", "10.0.0.2", services={WEB: {}})
VECTORS: dict[str, tuple[list[Any], str, tuple[str, ...]]] = {
    "unknown": ([], "1.2.3.4:80", ("TCP", "-", "1.2.3.4:80")),
    "hbone": ([TARGET], "10.0.0.2:80", ("HBONE", "10.0.0.2:80", "10.0.0.2:15008")),
    "hbone, same node": (
        [pod("p", "10.0.0.2", node="node-a")],
        "10.0.0.2:80",
        ("HBONE", "10.0.0.2:80", "10.0.0.2:15008"),
    ),
    "hbone, IPv6": ([pod("p", "fd00::2")], "[fd00::2]:80", ("HBONE", "[fd00::2]:80", "[fd00::2]:15008")),
    "plain": ([pod("p", "10.0.0.2", hbone=False)], "10.0.0.2:80", ("TCP", "-", "10.0.0.2:80")),
    "service": ([TARGET, service("web", "10.1.0.1")], "10.1.0.1:80", ("HBONE", "10.0.0.2:8080", "10.0.0.2:15008")),
    "service, IPv6": (
        [pod("p", "fd00::2", services={WEB: {}}), service("web", "fd00:1::1")],
        "[fd00:1::1]:80",
        ("HBONE", "[fd00::2]:8080", "[fd00::2]:15008"),
    ),
    "service of plain pods": (
        [pod("p", "10.0.0.2", hbone=False, services={WEB: {}}), service("web", "10.1.0.1")],
        "10.1.0.1:80",
        ("TCP", "-", "10.0.0.2:8080"),
    ),
    "service on a block of addresses": (
        [TARGET, service("web", "10.1.0.0/16")],
        "10.1.2.3:80",
        ("HBONE", "10.0.0.2:8080", "10.0.0.2:15008"),
    ),
    "an address that is both a service's and a pod's": (
        [TARGET, pod("q", "10.1.0.1"), service("web", "10.1.0.1")],
        "10.1.0.1:80",
        ("HBONE", "10.0.0.2:8080", "10.0.0.2:15008"),
    ),
    "other network only": ([pod("p", "10.0.0.2", network="far")], "10.0.0.2:80", ("TCP", "-", "10.0.0.2:80")),
    "service whose endpoints are on another network": (
        [pod("p", "10.0.0.2", network="far", services={WEB: {}}), service("web", "10.1.0.1")],
        "10.1.0.1:80",
        ("REFUSE",),
    ),
    "service with endpoints on both networks": (
        [pod("o", "10.0.0.3", network="far", services={WEB: {}}), TARGET, service("web", "10.1.0.1")],
        "10.1.0.1:80",
        ("HBONE", "10.0.0.2:8080", "10.0.0.2:15008"),
    ),
    "service without endpoints": ([service("web", "10.1.0.1")], "10.1.0.1:80", ("REFUSE",)),
    "service without that port": ([TARGET, service("web", "10.1.0.1")], "10.1.0.1:81", ("REFUSE",)),
    "pod waypoint": (
        [pod("p", "10.0.0.2", waypoint=gateway("10.0.0.9")), WAYPOINT_POD],
        "10.0.0.2:80",
        ("HBONE", "10.0.0.2:80", "10.0.0.9:15008"),
    ),
    "pod waypoint, another family": (
        [pod("p", "fd00::2", waypoint=gateway("10.0.0.9")), WAYPOINT_POD],
        "[fd00::2]:80",
        ("HBONE", "[fd00::2]:80", "10.0.0.9:15008"),
    ),
    "pod waypoint by service address": (
        [pod("p", "10.0.0.2", waypoint=gateway("10.1.0.9")), WAYPOINT, WAYPOINT_POD],
        "10.0.0.2:80",
        ("HBONE", "10.0.0.2:80", "10.0.0.9:15008"),
    ),
    "pod waypoint, plain pod": (
        [pod("p", "10.0.0.2", hbone=False, waypoint=BOUND), WAYPOINT, WAYPOINT_POD],
        "10.0.0.2:80",
        ("HBONE", "10.0.0.2:80", "10.0.0.9:15008"),
    ),
    "service waypoint": (
        [TARGET, service("web", "10.1.0.1", waypoint=BOUND), WAYPOINT, WAYPOINT_POD],
        "10.1.0.1:80",
        ("HBONE", "10.1.0.1:80", "10.0.0.9:15008"),
    ),
    "service waypoint whose port is mapped": (
        [
            TARGET,
            service("web", "10.1.0.1", waypoint=gateway(WAYPOINT_KEY, 15009)),
            service("waypoint", mapping={15009: 15008}),
            WAYPOINT_POD,
        ],
        "10.1.0.1:80",
        ("HBONE", "10.1.0.1:80", "10.0.0.9:15008"),
    ),
    "service waypoint on another network": (
        [
            TARGET,
            service("web", "10.1.0.1", waypoint=BOUND),
            WAYPOINT,
            pod("w", "10.0.0.9", network="far", services={WAYPOINT_KEY: {}}),
        ],
        "10.1.0.1:80",
        ("REFUSE",),
    ),
    "the waypoint of a pod does not concern its service": (
        [pod("p", "10.0.0.2", services={WEB: {}}, waypoint=BOUND), service("web", "10.1.0.1"), WAYPOINT, WAYPOINT_POD],
        "10.1.0.1:80",
        ("HBONE", "10.0.0.2:8080", "10.0.0.2:15008"),
    ),
    "host network pods by service": (
        [
            pod("p", "10.0.0.50", services={WEB: {}}, hbone=False, network_mode=NetworkMode.HOST_NETWORK),
            service("web", "10.1.0.1"),
        ],
        "10.1.0.1:80",
        ("TCP", "-", "10.0.0.50:8080"),
    ),
    "host network pods by address": (
        [pod("p", "10.0.0.50", network_mode=NetworkMode.HOST_NETWORK)],
        "10.0.0.50:80",
        ("TCP", "-", "10.0.0.50:80"),
    ),
    "passed through": (
        [TARGET, service("web", "10.1.0.1", load_balancing=LoadBalancing(mode=LoadBalancingMode.PASSTHROUGH))],
        "10.1.0.1:80",
        ("TCP", "-", "10.1.0.1:80"),
    ),
    "passed through a waypoint": (
        [
            service(
                "web",
                "10.1.0.1",
                load_balancing=LoadBalancing(mode=LoadBalancingMode.PASSTHROUGH),
                waypoint=BOUND,
            ),
            WAYPOINT,
            WAYPOINT_POD,
        ],
        "10.1.0.1:99",
        ("HBONE", "10.1.0.1:99", "10.0.0.9:15008"),
    ),
}


@pytest.mark.parametrize("case", VECTORS)
def test_vectors(case: str) -> None:
    things, destination, expected = VECTORS[case]
    assert short(plan(mesh(SOURCE, *things), destination)) == expected


# --- who must be at the other end


def test_the_peer_must_be_the_destination_or_a_name_of_its_service() -> None:
    names = ("spiffe://cluster.local/ns/far/sa/web", "not-a-spiffe-id", "")
    state = mesh(
        SOURCE,
        pod("p", "10.0.0.2", service_account="web", trust_domain="td", services={WEB: {}}),
        service("web", "10.1.0.1", subject_alt_names=names),
    )
    by_service, by_address = plan(state, "10.1.0.1:80"), plan(state, "10.0.0.2:80")
    assert isinstance(by_service, Tunnel)
    assert isinstance(by_address, Tunnel)
    own = SpiffeId("td", "ns1", "web")
    assert by_service.identities == {own, SpiffeId("cluster.local", "far", "web")}
    assert by_address.identities == {own}
    assert by_service.service == "web.ns1.svc.cluster.local"
    assert by_address.service == ""


def test_a_waypoint_must_prove_its_own_identity_not_the_destinations() -> None:
    state = mesh(
        SOURCE,
        pod("p", "10.0.0.2", service_account="web", services={WEB: {}}),
        service("web", "10.1.0.1", waypoint=BOUND),
        WAYPOINT,
        WAYPOINT_POD,
    )
    tunnel = plan(state, "10.1.0.1:80")
    assert isinstance(tunnel, Tunnel)
    assert tunnel.identities == {WAYPOINT_POD.identity}
    assert tunnel.via_waypoint
    assert tunnel.workload == WAYPOINT_POD.uid


# --- closed where something is missing


@pytest.mark.parametrize(
    ("things", "words"),
    [
        ([], "waypoint ns1/waypoint.ns1.svc.cluster.local of service ns1/web.ns1.svc.cluster.local is not known"),
        ([WAYPOINT], "has no endpoints"),
        (
            [WAYPOINT, pod("w", "10.0.0.9", services={WAYPOINT_KEY: {}}, status=WorkloadStatus.UNHEALTHY)],
            "none of the 1 endpoints of service ns1/waypoint.ns1.svc.cluster.local is healthy",
        ),
        ([service("waypoint", mapping={80: 80}), WAYPOINT_POD], "has no port 15008"),
    ],
)
def test_a_bound_waypoint_that_cannot_be_used_refuses(things: list[Any], words: str) -> None:
    state = mesh(SOURCE, TARGET, service("web", "10.1.0.1", waypoint=BOUND), *things)
    refusal = plan(state, "10.1.0.1:80")
    assert isinstance(refusal, Refuse)
    assert words in refusal.reason


def test_a_pods_bound_waypoint_that_is_missing_refuses() -> None:
    refusal = plan(mesh(SOURCE, pod("p", "10.0.0.2", waypoint=gateway("10.0.0.77"))), "10.0.0.2:80")
    assert isinstance(refusal, Refuse)
    assert "/10.0.0.77" in refusal.reason


@pytest.mark.parametrize(
    ("things", "words"),
    [
        ([], "service ns1/web.ns1.svc.cluster.local has no endpoints"),
        ([pod("p", "10.0.0.2", services={WEB: {}}, status=WorkloadStatus.UNHEALTHY)], "none of the 1 endpoints"),
        ([pod("p", "10.0.0.2", services={WEB: {}}, network="far")], "no route to network 'far'"),
        ([pod("p", services={WEB: {}}, hostname="db.example.com")], "has an address"),
        ([pod("p", "fd00::2", services={WEB: {}})], "has an address of a family"),
    ],
)
def test_a_service_that_cannot_be_reached_refuses_and_says_why(things: list[Any], words: str) -> None:
    state = mesh(SOURCE, service("web", "10.1.0.1", ip_families=IpFamilies.IPV4_ONLY), *things)
    refusal = plan(state, "10.1.0.1:80")
    assert isinstance(refusal, Refuse)
    assert words in refusal.reason
    assert refusal.flag is Flag.CONNECT


def test_a_pod_that_is_not_known_yet_is_refused() -> None:
    refusal = plan_outbound(mesh(TARGET), WorkloadUid("Kubernetes//Pod/ns1/new"), at("10.0.0.2:80"), lambda: 0.0)
    assert isinstance(refusal, Refuse)
    assert "Kubernetes//Pod/ns1/new is not known yet" in refusal.reason


@pytest.mark.parametrize("port", [15001, 15006, 15008, 15053])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "10.0.0.1", "[fd00::1]"])
def test_the_pods_own_proxy_is_never_dialled(host: str, port: int) -> None:
    refusal = plan(mesh(SOURCE), f"{host}:{port}")
    assert isinstance(refusal, Refuse)
    assert refusal.flag is Flag.DENY


def test_another_pods_proxy_ports_are_ports_like_others() -> None:
    assert short(plan(mesh(SOURCE, TARGET), "10.0.0.2:15006")) == ("HBONE", "10.0.0.2:15006", "10.0.0.2:15008")


# --- the pod itself, and the waypoint itself


def test_a_pod_that_dials_itself_is_connected_directly() -> None:
    own = pod("source", "10.0.0.1", services={WEB: {}}, waypoint=BOUND)
    state = mesh(own, service("web", "10.1.0.1"))
    assert short(plan(state, "10.0.0.1:80")) == ("TCP", "-", "10.0.0.1:80")
    assert short(plan(state, "10.1.0.1:80")) == ("TCP", "-", "10.0.0.1:8080")


def test_a_pods_own_waypoint_does_not_concern_what_it_sends() -> None:
    own = pod("source", "10.0.0.1", waypoint=BOUND)
    assert short(plan(mesh(own, TARGET, WAYPOINT, WAYPOINT_POD), "10.0.0.2:80"))[2] == "10.0.0.2:15008"


@pytest.mark.parametrize("binding", [BOUND, gateway("10.0.0.9")])
def test_what_a_waypoint_sends_goes_on_to_the_destination(binding: Any) -> None:
    target = pod("p", "10.0.0.2", services={WEB: {}}, waypoint=binding)
    state = mesh(target, service("web", "10.1.0.1", waypoint=BOUND), WAYPOINT, WAYPOINT_POD)
    for destination, authority in (("10.0.0.2:80", "10.0.0.2:80"), ("10.1.0.1:80", "10.0.0.2:8080")):
        decision = plan_outbound(state, WAYPOINT_POD.uid, at(destination), lambda: 0.0)
        assert short(decision) == ("HBONE", authority, "10.0.0.2:15008")


# --- ports and addresses


def test_a_named_target_port_is_looked_up_at_the_endpoint_and_those_without_it_are_left_out() -> None:
    state = mesh(
        SOURCE,
        pod("a", "10.0.0.2", services={WEB: {80: 1234}}),
        pod("b", "10.0.0.3", services={WEB: {8080: 80}}),
        service("web", "10.1.0.1", mapping={80: 0}),
    )
    for chance in (0.0, 0.49, 0.5, 0.99):
        assert short(plan(state, "10.1.0.1:80", chance))[1] == "10.0.0.2:1234"


def test_the_endpoints_own_port_counts_more_than_the_services() -> None:
    state = mesh(SOURCE, pod("a", "10.0.0.2", services={WEB: {80: 1234}}), service("web", "10.1.0.1"))
    assert short(plan(state, "10.1.0.1:80"))[1] == "10.0.0.2:1234"


def test_an_application_tunnel_takes_the_services_port_where_none_is_mapped() -> None:
    tunnelled = pod("a", "10.0.0.2", services={WEB: {}}, application_tunnel=ApplicationTunnel(port=15088))
    state = mesh(SOURCE, tunnelled, service("web", "10.1.0.1", mapping={80: 0}))
    assert short(plan(state, "10.1.0.1:80"))[1] == "10.0.0.2:80"


@pytest.mark.parametrize(
    ("families", "dialled", "expected"),
    [
        (IpFamilies.AUTOMATIC, "10.1.0.1", "10.0.0.2"),
        (IpFamilies.DUAL, "10.1.0.1", "10.0.0.2"),
        (IpFamilies.DUAL, "fd00:1::1", "[fd00::2]"),
        (IpFamilies.IPV4_ONLY, "fd00:1::1", "10.0.0.2"),
        (IpFamilies.IPV6_ONLY, "10.1.0.1", "[fd00::2]"),
        (IpFamilies.IPV6_ONLY, "fd00:1::1", "[fd00::2]"),
    ],
)
def test_the_family_is_the_dialled_one_if_the_service_has_it(families: IpFamilies, dialled: str, expected: str) -> None:
    state = mesh(
        SOURCE,
        pod("p", "10.0.0.2", "fd00::2", services={WEB: {}}),
        service("web", "10.1.0.1", "fd00:1::1", ip_families=families),
    )
    host = f"[{dialled}]" if ":" in dialled else dialled
    assert short(plan(state, f"{host}:80")) == ("HBONE", f"{expected}:8080", f"{expected}:15008")


# --- load balancing


def test_connections_are_spread_in_proportion_to_capacity() -> None:
    state = mesh(
        SOURCE,
        pod("a", "10.0.0.2", services={WEB: {}}, capacity=1),
        pod("b", "10.0.0.3", services={WEB: {}}, capacity=3),
        service("web", "10.1.0.1"),
    )
    dials = [short(plan(state, "10.1.0.1:80", step / 8))[2] for step in range(8)]
    assert dials == ["10.0.0.2:15008"] * 2 + ["10.0.0.3:15008"] * 6


def test_unhealthy_endpoints_take_connections_only_where_the_service_allows_all() -> None:
    sick = pod("p", "10.0.0.2", services={WEB: {}}, status=WorkloadStatus.UNHEALTHY)
    everyone = LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL)
    assert short(plan(mesh(SOURCE, sick, service("web", "10.1.0.1")), "10.1.0.1:80")) == ("REFUSE",)
    allowed = service("web", "10.1.0.1", load_balancing=everyone)
    assert short(plan(mesh(SOURCE, sick, allowed), "10.1.0.1:80"))[2] == "10.0.0.2:15008"


def test_failover_leaves_the_node_only_when_nothing_there_is_healthy() -> None:
    preference = LoadBalancing((Scope.NODE,), LoadBalancingMode.FAILOVER)
    near, far = (pod(n, ip, node=f"node-{n}", services={WEB: {}}) for n, ip in (("a", "10.0.0.2"), ("b", "10.0.0.3")))
    state = mesh(SOURCE, near, far, service("web", "10.1.0.1", load_balancing=preference))
    assert {short(plan(state, "10.1.0.1:80", chance))[2] for chance in (0.0, 0.99)} == {"10.0.0.2:15008"}
    state.apply(update(removed_workloads=(near.uid,)))
    assert short(plan(state, "10.1.0.1:80"))[2] == "10.0.0.3:15008"


def test_strict_refuses_rather_than_going_farther() -> None:
    preference = LoadBalancing((Scope.NODE,), LoadBalancingMode.STRICT)
    far = pod("b", "10.0.0.3", node="node-b", services={WEB: {}})
    refusal = plan(mesh(SOURCE, far, service("web", "10.1.0.1", load_balancing=preference)), "10.1.0.1:80")
    assert isinstance(refusal, Refuse)
    assert "1 are farther away" in refusal.reason


def test_weighted_waypoints_share_the_connections() -> None:
    other_key = ServiceKey("ns1/other.ns1.svc.cluster.local")
    web = service(
        "web", "10.1.0.1", weighted_waypoints=(WeightedGateway(BOUND, 1), WeightedGateway(gateway(other_key), 3))
    )
    state = mesh(
        SOURCE,
        web,
        WAYPOINT,
        WAYPOINT_POD,
        service("other", mapping={15008: 15008}),
        pod("o", "10.0.0.10", services={other_key: {}}),
    )
    dials = [short(plan(state, "10.1.0.1:80", step / 8))[2] for step in range(8)]
    assert dials == ["10.0.0.9:15008"] * 2 + ["10.0.0.10:15008"] * 6


# --- when a dial has failed


def test_an_endpoint_that_failed_is_avoided_until_none_is_left() -> None:
    pods = [pod(n, f"10.0.0.{number}", services={WEB: {}}) for number, n in enumerate("abc", 2)]
    state = mesh(SOURCE, *pods, service("web", "10.1.0.1"))
    avoid: frozenset[WorkloadUid] = frozenset()
    for _ in pods:
        tunnel = plan(state, "10.1.0.1:80", avoid=avoid)
        assert isinstance(tunnel, Tunnel)
        assert tunnel.workload not in avoid
        avoid |= {tunnel.workload}
    refusal = plan(state, "10.1.0.1:80", avoid=avoid)
    assert isinstance(refusal, Refuse)
    assert "none of the 3 healthy endpoints" in refusal.reason
    assert isinstance(plan(state, "10.0.0.2:80", avoid=avoid), Refuse)


def test_a_failed_waypoint_pod_is_avoided_and_never_gone_round() -> None:
    second = pod("waypoint-2", "10.0.0.10", services={WAYPOINT_KEY: {}})
    state = mesh(SOURCE, TARGET, service("web", "10.1.0.1", waypoint=BOUND), WAYPOINT, WAYPOINT_POD, second)
    assert short(plan(state, "10.1.0.1:80", avoid=frozenset({WAYPOINT_POD.uid})))[2] == "10.0.0.10:15008"
    refusal = plan(state, "10.1.0.1:80", avoid=frozenset({WAYPOINT_POD.uid, second.uid}))
    assert isinstance(refusal, Refuse)
    assert "waypoint" in refusal.reason


def test_plans_can_be_printed() -> None:
    assert "10.0.0.2:15008" in str(plan(mesh(SOURCE, TARGET), "10.0.0.2:80")).replace("', port=", ":")
