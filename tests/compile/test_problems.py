"""What contradicts itself is reported, costs only what is wrong, and disturbs nothing else."""

from __future__ import annotations

from controller.store.interface import Key
from tests.compile.objects import Mesh, endpoint_slice, namespace, pod, service, to_pod

OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def test_of_two_pods_with_one_address_the_newer_loses_it() -> None:
    mesh = Mesh(
        pod("web-1", "10.1.0.1", "fd00::1", creationTimestamp=NEW), pod("web-2", "10.1.0.1", creationTimestamp=OLD)
    )
    assert mesh.pod("web-2").addresses == ("10.1.0.1",)
    assert mesh.pod("web-1").addresses == ("fd00::1",)
    assert mesh.sentences() == [
        "Pod shop/web-1: status.podIPs: 10.1.0.1 is the address of Pod shop/web-2 already; "
        "this pod is not reached by it"
    ]
    changes = mesh.delete(pod("web-2"))
    assert mesh.pod("web-1").addresses == ("10.1.0.1", "fd00::1")
    assert changes.problems == {Key("Pod", "shop", "web-1"): ()}


def test_a_newcomer_cannot_take_over_an_address() -> None:
    mesh = Mesh(pod("web-2", "10.1.0.1", creationTimestamp=OLD))
    changes = mesh.apply(pod("web-1", "10.1.0.1", creationTimestamp=NEW))
    assert not changes.update.workloads
    assert list(changes.problems) == [Key("Pod", "shop", "web-1")]
    mesh.apply(pod("web-2", "10.1.0.1", creationTimestamp=OLD, phase="Succeeded"))
    assert list(mesh.workloads) == ["Kubernetes//Pod/shop/web-1"]
    assert not mesh.sentences()


def test_of_two_services_with_one_address_the_newer_loses_it() -> None:
    mesh = Mesh(
        service("b", "10.2.0.1", metadata={"creationTimestamp": OLD}),
        service("a", "10.2.0.1", metadata={"creationTimestamp": NEW}),
    )
    assert mesh.service("b").addresses
    assert not mesh.service("a").addresses
    assert mesh.sentences() == [
        "Service shop/a: spec.clusterIPs: 10.2.0.1 is the address of Service shop/b already; "
        "this service does not have it"
    ]


def test_a_slice_that_names_a_missing_pod() -> None:
    piece = endpoint_slice("web-x", "web", [to_pod("web-1"), to_pod("gone")])
    mesh = Mesh(service(), pod("web-1", "10.1.0.1"), piece)
    assert mesh.sentences() == [
        "EndpointSlice shop/web-x: endpoints[1].targetRef: there is no Pod shop/gone; this endpoint is not used"
    ]
    assert mesh.pod("web-1").services
    assert len(mesh.workloads) == 1
    mesh.apply(pod("gone", "10.1.0.2"))
    assert not mesh.sentences()
    assert mesh.pod("gone").services


def test_a_slice_that_names_the_predecessor_of_a_pod() -> None:
    piece = endpoint_slice("web-x", "web", [to_pod("web-1", uid="earlier")])
    mesh = Mesh(service(), pod("web-1", "10.1.0.1"), piece)
    assert not mesh.pod("web-1").services
    assert "is another one than the one with uid earlier" in mesh.sentences()[0]
    mesh.apply(pod("web-1", "10.1.0.1", uid="earlier"))
    assert mesh.pod("web-1").services
    assert not mesh.sentences()


def test_a_named_port_that_no_endpoint_has() -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "admin", "port": 81, "targetPort": "adm"}]
    mesh = Mesh(service(ports=ports), pod("web-1", "10.1.0.1"))
    assert not mesh.sentences()  # without endpoints nobody can tell
    mesh.apply(endpoint_slice("web-x", "web", [to_pod("web-1")]))
    assert mesh.sentences() == [
        "Service shop/web: spec.ports[1].targetPort: no endpoint has a port named 'adm'; port 81 leads nowhere"
    ]


def test_values_that_have_no_meaning_have_no_effect_and_are_reported() -> None:
    mesh = Mesh(
        namespace(labels={"istio.io/dataplane-mode": "ambiant"}),
        pod("web-1", "10.1.0.1", labels={"istio.io/dataplane-mode": "sidecar"}),
        service(metadata={"annotations": {"networking.istio.io/traffic-distribution": "Close"}}),
    )
    assert mesh.sentences() == [
        "Namespace shop: metadata.labels[\"istio.io/dataplane-mode\"]: 'ambiant' is neither ambient nor none; "
        "it has no effect",
        "Pod shop/web-1: metadata.labels[\"istio.io/dataplane-mode\"]: 'sidecar' is neither ambient nor none; "
        "it has no effect",
        "Service shop/web: metadata.annotations[\"networking.istio.io/traffic-distribution\"]: 'Close' is none of "
        "PreferClose, PreferSameZone, PreferSameNode, Any; it has no effect",
    ]
    assert mesh.pod()
    assert mesh.service()


def test_an_object_that_cannot_be_read_stays_as_it_was() -> None:
    mesh = Mesh(pod("web-1", "10.1.0.1"))
    broken = pod("web-1", "10.1.0.1")
    broken["spec"]["nodeName"] = 3
    changes = mesh.apply(broken)
    assert not changes.update.workloads
    assert not changes.update.removed_workloads
    assert "Pod shop/web-1: the object: cannot be read and is as it was before" in mesh.sentences()[0]
    mesh.apply(pod("web-1", "10.1.0.2"))
    assert not mesh.sentences()
    mesh.apply(broken)
    mesh.delete(broken)
    assert not mesh.sentences()
    assert not mesh.workloads


def test_a_certificate_is_for_accounts_that_run_on_the_node_now_in_the_mesh_or_not() -> None:
    mesh = Mesh(pod("web-1"))
    runs = mesh.compiler.index.runs_on_node
    assert runs("node1", "shop", "web")
    assert not runs("node2", "shop", "web")
    assert not runs("node1", "shop", "other")
    assert not runs("node1", "elsewhere", "web")
    mesh.apply(pod("web-2", account="other"))
    mesh.apply(pod("web-1", phase="Succeeded"))
    assert not runs("node1", "shop", "web")
    mesh.delete(pod("web-2"))
    assert not runs("node1", "shop", "other")
    mesh.apply(pod("web-3", node=""))
    assert not runs("", "shop", "web")
