"""Names, addresses and targets, without a cluster."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from tests.cluster.daemons import named
from tests.cluster.plan import API_SERVICE, CLUSTER_DNS, PODS, SERVICES, Cluster

CLUSTER = Cluster("ambit-cluster", 4, 3, dual_stack=True)


def test_addresses_of_places_differ_and_are_in_the_clusters_own_network() -> None:
    found = [address for node in CLUSTER.nodes for address in node.addresses]
    assert len(set(found)) == 6
    assert {ip_network(f"{found[0]}/24", strict=False)} == {ip_network("172.30.4.0/24")}
    assert all(ip_address(address) in ip_network("fd00:172:30:4::/64") for address in found if ":" in address)


def test_pods_and_services_are_in_the_ranges_that_kubernetes_is_told() -> None:
    for node in CLUSTER.nodes:
        assert all(ip_network(own)[0] in ip_network(every) for own, every in zip(node.pods, PODS, strict=True))
    for address in (*API_SERVICE, *CLUSTER_DNS):
        assert any(ip_address(address) in ip_network(services) for services in SERVICES)


def test_ipv4_alone_has_no_ipv6_anywhere() -> None:
    cluster = Cluster("v4", 0, 1, dual_stack=False)
    assert cluster.nodes[0].addresses == ("172.30.0.11",)
    assert cluster.nodes[0].pods == ("10.244.1.0/24",)


@pytest.mark.parametrize("name", ["", "Upper", "has space", "../up", "sixteen-letters-", "1st"])
def test_a_name_that_no_interface_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cluster name"):
        Cluster(name, 0, 1, dual_stack=False)


@pytest.mark.parametrize("size", [0, 10])
def test_too_few_or_many_nodes_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="--nodes"):
        Cluster("c", 0, size, dual_stack=False)


@pytest.mark.parametrize(
    ("target", "daemons"),
    [
        (["apiserver"], ["kube-apiserver"]),
        (["etcd"], ["etcd"]),
        (["control-plane"], ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]),
        (["node2", "kubelet"], ["node2.kubelet"]),
        (["node1"], ["node1.containerd", "node1.kubelet", "node1.kube-proxy"]),
    ],
)
def test_targets_of_restart(target: list[str], daemons: list[str]) -> None:
    assert named(CLUSTER, target) == daemons


@pytest.mark.parametrize("target", [["node4"], ["node1", "etcd"], ["kubelet"], ["node1", "kubelet", "more"]])
def test_what_is_not_there_is_named(target: list[str]) -> None:
    with pytest.raises(KeyError, match=r"node4|node1|kubelet"):
        named(CLUSTER, target)
