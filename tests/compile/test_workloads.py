"""A pod as istiod would describe it to a ztunnel."""

from __future__ import annotations

from typing import Any

import pytest

from controller.compile.options import MeshOptions
from mesh.model.workload import Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus
from tests.compile.objects import Mesh, Object, endpoint_slice, node, pod, service

ENROLLED = {"ambient.istio.io/redirection": "enabled"}


def test_a_pod_with_all_that_is_known_of_it() -> None:
    place = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}
    mesh = Mesh(node(**place), pod("web-1", "10.1.0.1", "fd00::1", annotations=ENROLLED, labels={"app": "shopfront"}))
    assert mesh.pod() == Workload(
        uid="Kubernetes//Pod/shop/web-1",  # type: ignore[arg-type]
        name="web-1",
        namespace="shop",
        addresses=("10.1.0.1", "fd00::1"),  # type: ignore[arg-type]
        service_account="web",
        tunnel_protocol=TunnelProtocol.HBONE,
        node="node1",
        workload_name="web-1",
        canonical_name="shopfront",
        canonical_revision="latest",
        locality=Locality("r", "z"),
    )


def test_the_cluster_and_the_trust_domain_are_those_of_the_mesh() -> None:
    mesh = Mesh(pod("web-1", "10.1.0.1"), options=MeshOptions("east", "local.test", "example.org"))
    (workload,) = mesh.workloads.values()
    assert workload.uid == "east//Pod/shop/web-1"
    assert str(workload.identity) == "spiffe://example.org/ns/shop/sa/web"


@pytest.mark.parametrize(
    ("metadata", "protocol", "native"),
    [
        ({}, TunnelProtocol.NONE, False),
        ({"annotations": {"ambient.istio.io/redirection": "pending"}}, TunnelProtocol.NONE, False),
        ({"labels": {"istio.io/dataplane-mode": "ambient"}}, TunnelProtocol.NONE, False),  # wanted is not yet true
        ({"annotations": ENROLLED}, TunnelProtocol.HBONE, False),
        ({"annotations": ENROLLED, "host_network": True}, TunnelProtocol.NONE, False),  # somebody else's word
        ({"labels": {"networking.istio.io/tunnel": "http"}}, TunnelProtocol.HBONE, True),
    ],
)
def test_peers_tunnel_to_pods_that_are_captured_now(metadata: Any, protocol: TunnelProtocol, native: bool) -> None:
    workload = Mesh(pod("web-1", "10.1.0.1", **metadata)).pod()
    assert (workload.tunnel_protocol, workload.native_tunnel) == (protocol, native)


@pytest.mark.parametrize(
    ("obj", "status"),
    [
        (pod("web-1", "10.1.0.1"), WorkloadStatus.HEALTHY),
        (pod("web-1", "10.1.0.1", ready=False), WorkloadStatus.UNHEALTHY),
        (pod("web-1", "10.1.0.1", phase="Pending", ready=False), WorkloadStatus.UNHEALTHY),
        (pod("web-1", "10.1.0.1", deletionTimestamp="2026-01-01T00:00:00Z"), WorkloadStatus.UNHEALTHY),
    ],
)
def test_a_pod_is_healthy_while_it_is_ready_and_stays(obj: Object, status: WorkloadStatus) -> None:
    assert Mesh(obj).pod().status is status


@pytest.mark.parametrize(
    "obj", [pod(), pod("web-1", "10.1.0.1", phase="Failed"), pod("web-1", "10.1.0.1", phase="Succeeded")]
)
def test_a_pod_without_an_address_or_that_has_ended_is_not_there(obj: Object) -> None:
    assert not Mesh(obj).workloads


def test_a_pod_with_only_the_old_single_address_field() -> None:
    obj = pod()
    obj["status"]["podIP"] = "10.1.0.9"
    assert Mesh(obj).pod().addresses == ("10.1.0.9",)


def test_pods_on_the_host_network_share_their_address_without_a_clash() -> None:
    mesh = Mesh(*(pod(name, "192.0.2.1", host_network=True) for name in ("web-1", "web-2")))
    assert {workload.network_mode for workload in mesh.workloads.values()} == {NetworkMode.HOST_NETWORK}
    assert len(mesh.workloads) == 2
    assert not mesh.sentences()


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({}, "web-1"),
        ({"ownerReferences": [{"kind": "Deployment", "name": "web", "controller": True}]}, "web"),
        ({"ownerReferences": [{"kind": "Node", "name": "node1"}]}, "web-1"),
        (
            {
                "ownerReferences": [{"kind": "ReplicaSet", "name": "web-5d9f", "controller": True}],
                "labels": {"pod-template-hash": "5d9f"},
            },
            "web",
        ),
        ({"ownerReferences": [{"kind": "Job", "name": "backup-28455930", "controller": True}]}, "backup"),
        ({"ownerReferences": [{"kind": "Job", "name": "migrate", "controller": True}]}, "migrate"),
        ({"labels": {"service.istio.io/workload-name": "named"}}, "named"),
    ],
)
def test_the_workload_is_named_after_what_was_deployed(metadata: Any, name: str) -> None:
    workload = Mesh(pod("web-1", "10.1.0.1", **metadata)).pod()
    assert (workload.workload_name, workload.canonical_name) == (name, name)


def test_the_canonical_name_and_revision_come_from_well_known_labels() -> None:
    labels = {"app": "c", "version": "d"}
    workload = Mesh(pod("web-1", "10.1.0.1", labels=labels)).pod()
    assert (workload.canonical_name, workload.canonical_revision) == ("c", "d")
    labels |= {"app.kubernetes.io/name": "b", "app.kubernetes.io/version": "e"}
    workload = Mesh(pod("web-1", "10.1.0.1", labels=labels)).pod()
    assert (workload.canonical_name, workload.canonical_revision) == ("b", "e")
    labels |= {"service.istio.io/canonical-name": "a", "service.istio.io/canonical-revision": "f"}
    workload = Mesh(pod("web-1", "10.1.0.1", labels=labels)).pod()
    assert (workload.canonical_name, workload.canonical_revision) == ("a", "f")


def test_a_node_that_moves_takes_its_pods_along() -> None:
    mesh = Mesh(node(), pod("web-1", "10.1.0.1"), pod("far", "10.1.0.2", node="node2"))
    changes = mesh.apply(node(**{"topology.kubernetes.io/zone": "b"}))
    assert [workload.name for workload in changes.update.workloads] == ["web-1"]
    assert mesh.pod().locality.zone == "b"


def test_endpoints_without_a_pod_are_workloads_that_are_not_found_by_address() -> None:
    endpoints = [
        {"addresses": ["192.0.2.7"], "nodeName": "node1"},
        {"addresses": ["192.0.2.8"], "conditions": {"ready": False}},
    ]
    mesh = Mesh(
        node(**{"topology.kubernetes.io/zone": "z"}), service("db", "10.2.0.1"), endpoint_slice("db-x", "db", endpoints)
    )
    first, second = mesh.workloads.values()
    assert first.uid == "Kubernetes/discovery.k8s.io/EndpointSlice/shop/db-x/192.0.2.7"
    assert {first.network_mode, second.network_mode} == {NetworkMode.HOST_NETWORK}
    assert (first.status, second.status) == (WorkloadStatus.HEALTHY, WorkloadStatus.UNHEALTHY)
    assert (first.locality.zone, second.locality.zone) == ("z", "")
    assert first.tunnel_protocol is TunnelProtocol.NONE
    assert list(first.services) == ["shop/db.shop.svc.cluster.local"]
