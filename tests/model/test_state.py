"""The mesh state: what a connection finds, and that incremental changes leave what a fresh start would have."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.model.address import Ip
from mesh.model.policy import Action, Authorization, PolicyScope
from mesh.model.state import MeshState
from mesh.model.workload import (
    GatewayAddress,
    NetworkMode,
    PolicyKey,
    ServiceKey,
    Visibility,
    WorkloadStatus,
    WorkloadUid,
)
from tests.model.building import gateway, mesh, pod, service, update

WEB = ServiceKey("ns1/web.ns1.svc.cluster.local")


def policy(name: str, namespace: str = "ns1", scope: PolicyScope = PolicyScope.NAMESPACE) -> Authorization:
    return Authorization(name, namespace, scope, Action.ALLOW)


# --- workloads


def test_a_workload_is_found_by_each_of_its_addresses_on_its_network() -> None:
    state = mesh(pod("a", "10.0.0.1", "fd00::1", network="nw1"))
    for ip in ("10.0.0.1", "fd00::1"):
        found = state.workload_at("nw1", Ip(ip))
        assert found is not None
        assert found.name == "a"
        assert state.workload_at("", Ip(ip)) is None


def test_host_network_pods_are_not_found_by_address() -> None:
    state = mesh(*(pod(n, "10.0.0.9", network_mode=NetworkMode.HOST_NETWORK, services={WEB: {}}) for n in "ab"))
    assert state.workload_at("", Ip("10.0.0.9")) is None
    assert [each.name for each in state.endpoints(WEB).members] == ["a", "b"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_workloads_that_share_an_address_pods_with_tunnels_are_preferred(order: tuple[int, ...]) -> None:
    entry = replace(pod("entry", "10.0.0.1"), uid=WorkloadUid("Kubernetes/networking.istio.io/WorkloadEntry/ns1/e"))
    rivals = [entry, pod("plain", "10.0.0.1", hbone=False), pod("tunnelled", "10.0.0.1")]
    state = MeshState()
    for each in order:
        state.apply(update(rivals[each]))
    names = []
    for _ in rivals:
        found = state.workload_at("", Ip("10.0.0.1"))
        assert found is not None
        names.append(found.name)
        state.apply(update(removed_workloads=(found.uid,)))
    assert names == ["tunnelled", "plain", "entry"]


def test_an_address_that_moved_to_a_new_pod_is_the_new_pods() -> None:
    state = mesh(pod("old", "10.0.0.1"))
    state.apply(update(pod("new", "10.0.0.1"), removed_workloads=(pod("old").uid,)))
    found = state.workload_at("", Ip("10.0.0.1"))
    assert found is not None
    assert found.name == "new"
    state.apply(update(pod("new", "10.0.0.2")))
    assert state.workload_at("", Ip("10.0.0.1")) is None


# --- endpoints


def test_endpoints_may_come_before_their_service_and_stay_when_it_changes() -> None:
    state = mesh(pod("a", "10.0.0.1", services={WEB: {80: 8080}}))
    assert set(state.staged()) == {WEB}
    state.apply(update(service("web", "10.1.0.1")))
    assert state.staged() == {}
    state.apply(update(service("web", "10.1.0.2")))
    assert [each.name for each in state.endpoints(WEB).members] == ["a"]
    state.apply(update(removed_services=(WEB,)))
    assert set(state.staged()) == {WEB}


def test_unhealthy_endpoints_are_kept_apart_and_come_back() -> None:
    sick = pod("a", "10.0.0.1", services={WEB: {}}, status=WorkloadStatus.UNHEALTHY)
    state = mesh(sick, pod("b", "10.0.0.2", services={WEB: {}}))
    assert [each.name for each in state.endpoints(WEB).members] == ["b"]
    assert [each.name for each in state.endpoints(WEB, healthy=False).members] == ["a", "b"]
    state.apply(update(replace(sick, status=WorkloadStatus.HEALTHY)))
    assert [each.name for each in state.endpoints(WEB).members] == ["a", "b"]


def test_a_pod_that_leaves_a_service_is_no_endpoint_any_more() -> None:
    state = mesh(pod("a", "10.0.0.1", services={WEB: {}}))
    assert len(state.endpoints(WEB)) == 1
    state.apply(update(pod("a", "10.0.0.1")))
    assert len(state.endpoints(WEB)) == 0


def test_endpoints_are_drawn_in_proportion_to_their_capacity() -> None:
    state = mesh(
        pod("light", "10.0.0.1", services={WEB: {}}, capacity=1),
        pod("none", "10.0.0.2", services={WEB: {}}, capacity=0),
        pod("rich", "10.0.0.3", services={WEB: {}}, capacity=3),
    )
    drawn = [state.endpoints(WEB).draw(step / 8) for step in range(8)]
    assert [each.name for each in drawn if each] == ["light"] * 2 + ["rich"] * 6


def test_endpoints_without_any_capacity_are_not_drawn() -> None:
    assert mesh(pod("a", services={WEB: {}}, capacity=0)).endpoints(WEB).draw(0.5) is None


def test_looking_for_unknown_names_keeps_nothing() -> None:
    state = MeshState()
    for number in range(100):
        state.endpoints(ServiceKey(f"ns/{number}"))
        state.workload_at("", Ip(f"10.9.9.{number}"))
    assert state.indexes() == MeshState().indexes()
    assert not state._drawable


# --- services by address


def name_at(state: MeshState, ip: str, namespace: str = "ns1") -> str | None:
    found = state.service_at("", Ip(ip), namespace)
    return found.name if found else None


def test_of_services_with_one_address_the_clients_own_then_the_canonical_one_is_meant() -> None:
    state = mesh(
        service("other", "10.1.0.1", namespace="a"),
        service("canonical", "10.1.0.1", namespace="z", canonical=True),
        service("own", "10.1.0.1", namespace="ns1"),
    )
    assert name_at(state, "10.1.0.1", "ns1") == "own"
    assert name_at(state, "10.1.0.1", "elsewhere") == "canonical"
    state.apply(update(removed_services=(ServiceKey("z/canonical.z.svc.cluster.local"),)))
    assert name_at(state, "10.1.0.1", "elsewhere") == "other"


def test_services_visible_to_their_namespace_are_not_found_from_others() -> None:
    state = mesh(service("hidden", "10.1.0.1", "10.2.0.0/16", visibility=Visibility.NAMESPACE))
    assert name_at(state, "10.1.0.1") == "hidden"
    assert name_at(state, "10.1.0.1", "ns2") is None
    assert name_at(state, "10.2.3.4") == "hidden"
    assert name_at(state, "10.2.3.4", "ns2") is None
    assert state.service_named("hidden.ns1.svc.cluster.local", "ns2") is None


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("10.1.2.3", "exact"),
        ("10.1.2.4", "narrow"),
        ("10.1.9.9", "middle"),
        ("10.9.9.9", "wide"),
        ("11.0.0.1", None),
        ("fd00:1::5", "six"),
        ("fd01::1", None),
    ],
)
def test_an_exact_address_comes_before_blocks_and_long_blocks_before_short_ones(ip: str, expected: str | None) -> None:
    state = mesh(
        service("wide", "10.0.0.0/8"),
        service("exact", "10.1.2.3/32"),
        service("middle", "10.1.0.0/16"),
        service("narrow", "10.1.2.0/24"),
        service("six", "fd00::/16"),
    )
    assert name_at(state, ip) == expected


def test_the_own_namespace_counts_more_than_a_longer_block() -> None:
    state = mesh(service("own", "10.0.0.0/8"), service("other", "10.1.0.0/16", namespace="a"))
    assert name_at(state, "10.1.0.1", "ns1") == "own"
    assert name_at(state, "10.1.0.1", "ns2") == "other"


def test_a_block_of_all_addresses_is_found() -> None:
    state = mesh(service("all", "0.0.0.0/0"))
    assert name_at(state, "203.0.113.7") == "all"
    assert name_at(state, "2001:db8::1") is None


def test_one_hostname_in_several_namespaces() -> None:
    host = "api.example.com"
    rivals = [service(f"in-{n}", namespace=n, hostname=host) for n in ("a", "b", "c")]
    state = mesh(*rivals)

    def named(namespace: str, preferred: str = "") -> str:
        found = state.service_named(host.upper(), namespace, preferred)
        assert found is not None
        return found.namespace

    assert named("b") == "b"
    assert named("elsewhere") == "a"
    assert named("elsewhere", preferred="c") == "c"
    state.apply(update(replace(rivals[1], canonical=True)))
    assert named("elsewhere", preferred="c") == "b"


# --- gateways


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (gateway("10.1.0.5"), "waypoint"),
        (gateway("10.0.0.5"), "pod-of-it"),
        (gateway("ns1/waypoint.ns1.svc.cluster.local"), "waypoint"),
        (gateway("ns1/gateway.example.com"), "pod-of-it"),
        (gateway("ns2/gateway.example.com"), None),
        (gateway("10.9.9.9"), None),
    ],
)
def test_a_waypoint_is_found_as_a_service_or_a_workload(address: GatewayAddress, expected: str | None) -> None:
    state = mesh(service("waypoint", "10.1.0.5"), pod("pod-of-it", "10.0.0.5", hostname="gateway.example.com"))
    found = state.gateway(address, "", "ns1")
    assert (found.name if found else None) == expected


# --- policies


def test_policies_of_a_workload_are_the_global_ones_its_namespaces_and_those_it_names() -> None:
    selected = replace(pod("a"), authorization_policies=(PolicyKey("ns1/selector"),))
    state = mesh(
        policy("root", "istio-system", PolicyScope.GLOBAL),
        policy("here"),
        policy("there", "ns2"),
        policy("selector", scope=PolicyScope.WORKLOAD_SELECTOR),
        policy("unselected", scope=PolicyScope.WORKLOAD_SELECTOR),
        selected,
    )
    found = state.policies_for(selected)
    assert [each.key for each in found.allow] == ["istio-system/root", "ns1/here", "ns1/selector"]
    assert found.missing == ()


def test_a_policy_that_has_not_come_is_missing_until_it_comes() -> None:
    selected = replace(pod("a"), authorization_policies=(PolicyKey("ns1/late"),))
    state = mesh(selected)
    assert state.policies_for(selected).missing == ("ns1/late",)
    state.apply(update(policy("late", scope=PolicyScope.WORKLOAD_SELECTOR)))
    assert state.policies_for(selected).missing == ()
    state.apply(update(removed_policies=(PolicyKey("ns1/late"),)))
    assert state.policies_for(selected).missing == ("ns1/late",)


def test_a_policy_that_changes_its_scope_leaves_its_old_one() -> None:
    state = mesh(policy("p", "root", PolicyScope.GLOBAL))
    state.apply(update(policy("p", "root", PolicyScope.NAMESPACE)))
    assert state.policies_for(pod("a")).allow == ()


# --- updates as a whole


def test_what_an_update_removes_and_brings_is_there_afterwards() -> None:
    state = mesh(pod("a", "10.0.0.1"))
    state.apply(update(pod("a", "10.0.0.2"), removed_workloads=(pod("a").uid,)))
    assert state.workload_at("", Ip("10.0.0.2")) is not None


def test_a_replacing_update_leaves_only_what_it_names() -> None:
    state = mesh(pod("a", "10.0.0.1", services={WEB: {}}), service("web", "10.1.0.1", "10.2.0.0/16"), policy("p"))
    state.apply(update(pod("b", "10.0.0.2"), replace=True))
    assert state.indexes() == mesh(pod("b", "10.0.0.2")).indexes()


IPS = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"])
KEYS = st.sampled_from([ServiceKey(f"{n}/{h}.{n}.svc.cluster.local") for n in ("ns1", "ns2") for h in ("web", "db")])
NAMES = st.sampled_from("abcd")
SPACES = st.sampled_from(["ns1", "ns2"])
WORKLOADS = st.builds(
    lambda name, namespace, ips, keys, healthy, mode, hbone, network, host: pod(
        name,
        *sorted(ips),
        namespace=namespace,
        services={key: {80: 8080} for key in keys},
        status=WorkloadStatus(int(not healthy)),
        network_mode=mode,
        hbone=hbone,
        network=network,
        hostname=host,
    ),
    NAMES,
    SPACES,
    st.sets(IPS),
    st.sets(KEYS),
    st.booleans(),
    st.sampled_from(NetworkMode),
    st.booleans(),
    st.sampled_from(["", "nw2"]),
    st.sampled_from(["", "gw.example.com"]),
)
VIPS = st.sampled_from(["10.1.0.1", "10.1.0.2", "10.0.0.0/8", "10.1.0.0/16", "fd00::/16", "nw2|10.1.0.1", "0.0.0.0/0"])
SERVICES = st.builds(
    lambda name, namespace, vips, canonical: service(name, *vips, namespace=namespace, canonical=canonical),
    st.sampled_from(["web", "db"]),
    SPACES,
    st.lists(VIPS, max_size=4),  # with repetitions
    st.booleans(),
)
POLICIES = st.builds(
    lambda name, namespace, scope, action, dry: Authorization(name, namespace, scope, action, dry_run=dry),
    NAMES,
    SPACES,
    st.sampled_from(PolicyScope),
    st.sampled_from(Action),
    st.booleans(),
)
UPDATES = st.builds(
    lambda things, uids, keys, policies, whole: update(
        *things, removed_workloads=tuple(uids), removed_services=tuple(keys), removed_policies=policies, replace=whole
    ),
    st.lists(st.one_of(WORKLOADS, SERVICES, POLICIES), max_size=5),
    st.lists(WORKLOADS.map(lambda each: each.uid), max_size=2),
    st.lists(KEYS, max_size=2),
    st.lists(POLICIES.map(lambda each: each.key), max_size=2).map(tuple),
    st.sampled_from([False, False, False, True]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(UPDATES, max_size=6))
def test_any_sequence_of_updates_equals_a_fresh_start_with_what_is_left(updates: list) -> None:  # type: ignore[type-arg]
    state = MeshState()
    for each in updates:
        state.apply(each)
        for key in ("ns1/web.ns1.svc.cluster.local", "ns2/db.ns2.svc.cluster.local"):  # fill what is remembered
            state.endpoints(ServiceKey(key))
        state.policies_for(pod("a"))
    fresh = MeshState(state.snapshot())
    assert state.indexes() == fresh.indexes()
    assert state.snapshot() == fresh.snapshot()
    for key in ("ns1/web.ns1.svc.cluster.local", "ns2/db.ns2.svc.cluster.local"):
        for healthy in (True, False):
            remembered, rebuilt = (each.endpoints(ServiceKey(key), healthy).members for each in (state, fresh))
            assert remembered == rebuilt
    assert state.policies_for(pod("a")) == fresh.policies_for(pod("a"))
    state.apply(update(replace=True))
    assert state.indexes() == MeshState().indexes()
