"""Services, and which pods are behind which of their ports."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.model.workload import (
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    PortMapping,
    Scope,
)
from tests.compile.objects import Mesh, endpoint_slice, namespace, pod, service, to_pod

WEB = "shop/web.shop.svc.cluster.local"
ZONE = (Scope.NETWORK, Scope.REGION, Scope.ZONE)


def test_a_service_with_two_addresses() -> None:
    found = Mesh(service("web", "10.2.0.1", "fd02::1", ipFamilies=["IPv4", "IPv6"])).service()
    assert (found.name, found.namespace, found.hostname) == ("web", "shop", "web.shop.svc.cluster.local")
    assert [address.ip for address in found.addresses] == ["10.2.0.1", "fd02::1"]
    assert found.ip_families is IpFamilies.DUAL
    assert found.ports == (PortMapping(80, 0),)  # a named port: each endpoint has its own number
    assert found.canonical


@pytest.mark.parametrize(("target", "number"), [(8080, 8080), (None, 80), ("http", 0)])
def test_target_ports(target: Any, number: int) -> None:
    port = {"port": 80} | ({"targetPort": target} if target else {})
    assert Mesh(service(ports=[port])).service().ports == (PortMapping(80, number),)


def test_only_tcp_is_carried() -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "targetPort": 5353}]
    assert Mesh(service(ports=ports)).service().ports == (PortMapping(53, 5353),)


def test_a_headless_service_has_no_addresses_and_an_external_name_is_not_there() -> None:
    assert Mesh(service("web", "None", clusterIP="None")).service().addresses == ()
    assert not Mesh(service(type="ExternalName", externalName="example.org")).services


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, None),
        ({"trafficDistribution": "PreferClose"}, LoadBalancing(ZONE, LoadBalancingMode.FAILOVER)),
        ({"trafficDistribution": "PreferSameZone"}, LoadBalancing(ZONE, LoadBalancingMode.FAILOVER)),
        (
            {"trafficDistribution": "PreferSameNode"},
            LoadBalancing((*ZONE, Scope.SUBZONE, Scope.NODE), LoadBalancingMode.FAILOVER),
        ),
        ({"internalTrafficPolicy": "Local"}, LoadBalancing((Scope.NODE,), LoadBalancingMode.STRICT)),
        (
            {"internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose"},
            LoadBalancing((Scope.NODE,), LoadBalancingMode.STRICT),
        ),
        ({"publishNotReadyAddresses": True}, LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL)),
        (
            {"publishNotReadyAddresses": True, "trafficDistribution": "PreferClose"},
            LoadBalancing(ZONE, LoadBalancingMode.FAILOVER, HealthPolicy.ALLOW_ALL),
        ),
    ],
)
def test_load_balancing(spec: Any, expected: LoadBalancing | None) -> None:
    assert Mesh(service(**spec)).service().load_balancing == expected


def test_traffic_distribution_by_annotation_of_the_service_or_its_namespace() -> None:
    close = {"networking.istio.io/traffic-distribution": "PreferClose"}
    mesh = Mesh(service(), service("any", metadata={"annotations": {next(iter(close)): "Any"}}))
    changes = mesh.apply(namespace(annotations=close))
    assert mesh.service().load_balancing == LoadBalancing(ZONE, LoadBalancingMode.FAILOVER)
    assert [changed.name for changed in changes.update.services] == ["web"]
    mesh.delete(namespace())
    assert mesh.service().load_balancing is None
    mesh.apply(service(metadata={"annotations": close}))
    assert mesh.service().load_balancing == LoadBalancing(ZONE, LoadBalancingMode.FAILOVER)


# --- membership


def test_a_pod_is_behind_the_services_whose_slices_name_it() -> None:
    mesh = Mesh(service(), pod("web-1", "10.1.0.1"), pod("web-2", "10.1.0.2"), pod("other", "10.1.0.3"))
    changes = mesh.apply(endpoint_slice("web-x", "web", [to_pod("web-1"), to_pod("web-2")]))
    assert [workload.name for workload in changes.update.workloads] == ["web-1", "web-2"]
    assert mesh.pod().services == {WEB: (PortMapping(80, 8080),)}
    assert mesh.pod("other").services == {}
    changes = mesh.apply(endpoint_slice("web-x", "web", [to_pod("web-1")]))
    assert [workload.name for workload in changes.update.workloads] == ["web-2"]
    assert mesh.pod("web-2").services == {}


def test_a_named_port_may_be_another_number_in_each_pod() -> None:
    mesh = Mesh(
        service(),
        pod("web-1", "10.1.0.1"),
        pod("web-2", "10.1.0.2"),
        endpoint_slice("web-x", "web", [to_pod("web-1")]),
        endpoint_slice("web-y", "web", [to_pod("web-2")], ports=[{"name": "http", "port": 9090}]),
    )
    assert mesh.pod("web-1").services == {WEB: (PortMapping(80, 8080),)}
    assert mesh.pod("web-2").services == {WEB: (PortMapping(80, 9090),)}


def test_dual_stack_slices_of_one_pod_are_one_membership() -> None:
    mesh = Mesh(
        service(),
        pod("web-1", "10.1.0.1", "fd00::1"),
        endpoint_slice("web-4", "web", [to_pod("web-1")]),
        endpoint_slice("web-6", "web", [to_pod("web-1", "fd00::1")], family="IPv6"),
    )
    assert mesh.pod().services == {WEB: (PortMapping(80, 8080),)}


def test_the_order_of_arrival_does_not_matter() -> None:
    mesh = Mesh(endpoint_slice("web-x", "web", [to_pod("web-1")]))
    mesh.apply(pod("web-1", "10.1.0.1"))
    assert mesh.pod().services == {}
    changes = mesh.apply(service())
    assert mesh.pod().services == {WEB: (PortMapping(80, 8080),)}
    assert len(changes.update.workloads) == 1
    mesh.delete(service())
    assert mesh.pod().services == {}
    assert not mesh.services


def test_an_update_holds_only_what_differs() -> None:
    objects = [service(), pod("web-1", "10.1.0.1"), endpoint_slice("web-x", "web", [to_pod("web-1")])]
    mesh = Mesh(*objects, pod("other", "10.1.0.2"))
    again = mesh.apply(*objects)
    assert (again.update.workloads, again.update.services, dict(again.problems)) == ((), (), {})
    changes = mesh.apply(pod("web-1", "10.1.0.1", ready=False))
    assert [workload.name for workload in changes.update.workloads] == ["web-1"]
    assert changes.update.services == ()
    changes = mesh.delete(pod("web-1"))
    assert changes.update.removed_workloads == ("Kubernetes//Pod/shop/web-1",)


def test_everything_is_the_state_that_the_updates_led_to() -> None:
    mesh = Mesh(service(), pod("web-1", "10.1.0.1"), endpoint_slice("web-x", "web", [to_pod("web-1")]))
    everything = mesh.compiler.everything()
    assert everything.replace
    assert set(everything.workloads) == set(mesh.workloads.values())
    assert list(everything.services) == list(mesh.services.values())
