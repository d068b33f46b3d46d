"""A pod, or an endpoint without one, as the mesh sees it (istiod: serviceregistry/ambient/workloads.go)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from controller.compile.options import MeshOptions
from controller.store.shapes import Endpoint, EndpointSlice, Node, Pod
from mesh.model.address import Ip, canonical
from mesh.model.enrolment import REDIRECTION, REDIRECTION_ENABLED
from mesh.model.workload import (
    Locality,
    NetworkMode,
    PortMapping,
    ServiceKey,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
    WorkloadUid,
)

Memberships = dict[ServiceKey, tuple[PortMapping, ...]]

TUNNEL_LABEL = "networking.istio.io/tunnel"  # "http": the pod speaks HBONE by itself
TEMPLATE_HASH = "pod-template-hash"
_TERMINAL = frozenset({"Succeeded", "Failed"})
_CRON_JOB = re.compile(r"(.+)-\d{8,10}")  # a CronJob's Jobs end in the minute or second of their schedule


def is_terminal(pod: Pod) -> bool:
    """All containers have ended for good: the pod's addresses may belong to another one by now."""
    return pod.status.phase in _TERMINAL


def addresses(pod: Pod) -> tuple[Ip, ...]:
    texts = [each.ip for each in pod.status.pod_ips if each.ip] or [pod.status.pod_ip]
    return tuple(canonical(text) for text in texts if text)


def claimed_addresses(pod: Pod) -> tuple[Ip, ...]:
    """The addresses that are this pod's alone."""
    return () if is_terminal(pod) or pod.spec.host_network else addresses(pod)


def locality(node: Node | None) -> Locality:
    """From the node's well-known labels (kubernetes.io/docs/reference/labels-annotations-taints)."""
    labels = node.metadata.labels if node is not None else {}
    return Locality(
        labels.get("topology.kubernetes.io/region", ""),
        labels.get("topology.kubernetes.io/zone", ""),
        labels.get("topology.istio.io/subzone", ""),
    )


def pod_uid(cluster_id: str, namespace: str, name: str) -> WorkloadUid:
    return WorkloadUid(f"{cluster_id}//Pod/{namespace}/{name}")


def of_pod(
    pod: Pod, usable: Collection[Ip], place: Locality, services: Memberships, options: MeshOptions
) -> Workload | None:
    """`usable` are those of its addresses that no other pod has. None while, or because, nobody can reach it."""
    kept = tuple(ip for ip in addresses(pod) if ip in usable)
    if is_terminal(pod) or not kept:
        return None
    metadata, labels = pod.metadata, pod.metadata.labels
    native = labels.get(TUNNEL_LABEL) == "http"
    name = workload_name(pod)
    return Workload(
        uid=pod_uid(options.cluster_id, metadata.namespace, metadata.name),
        name=metadata.name,
        namespace=metadata.namespace,
        addresses=kept,
        service_account=pod.spec.service_account_name,
        trust_domain=options.trust_domain,
        tunnel_protocol=TunnelProtocol.HBONE if native or _is_captured(pod) else TunnelProtocol.NONE,
        native_tunnel=native,
        node=pod.spec.node_name,
        workload_name=name,
        canonical_name=_first(labels, "service.istio.io/canonical-name", "app.kubernetes.io/name", "app") or name,
        canonical_revision=_first(labels, "service.istio.io/canonical-revision", "app.kubernetes.io/version", "version")
        or "latest",
        cluster_id=options.cluster_id,
        status=WorkloadStatus.HEALTHY if is_ready(pod) else WorkloadStatus.UNHEALTHY,
        network_mode=NetworkMode.HOST_NETWORK if pod.spec.host_network else NetworkMode.STANDARD,
        locality=place,
        services=services,
    )


def _is_captured(pod: Pod) -> bool:
    """As its node's agent says; of a pod on the host's network only somebody else can have said so."""
    return pod.metadata.annotations.get(REDIRECTION) == REDIRECTION_ENABLED and not pod.spec.host_network


def is_ready(pod: Pod) -> bool:
    return not pod.metadata.deletion_timestamp and any(
        condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions
    )


def workload_name(pod: Pod) -> str:
    """The name of what people deployed: the Deployment behind the ReplicaSet, the CronJob behind the Job."""
    labels = pod.metadata.labels
    named = labels.get("service.istio.io/workload-name")
    if named:
        return named
    owner = next((owner for owner in pod.metadata.owner_references if owner.controller), None)
    if owner is None:
        return pod.metadata.name
    if owner.kind == "ReplicaSet" and TEMPLATE_HASH in labels:
        return owner.name.removesuffix(f"-{labels[TEMPLATE_HASH]}")
    scheduled = _CRON_JOB.fullmatch(owner.name) if owner.kind == "Job" else None
    return scheduled[1] if scheduled else owner.name


def _first(labels: Mapping[str, str], *names: str) -> str:
    return next((labels[name] for name in names if labels.get(name)), "")


def of_endpoint(
    piece: EndpointSlice, endpoint: Endpoint, place: Locality, services: Memberships, options: MeshOptions
) -> Workload:
    """An endpoint that no pod is behind. Many may share an address, so it is never found by IP."""
    metadata, ips = piece.metadata, tuple(canonical(address) for address in endpoint.addresses)
    where = f"{options.cluster_id}/discovery.k8s.io/EndpointSlice/{metadata.namespace}/{metadata.name}"
    return Workload(
        uid=WorkloadUid(f"{where}/{ips[0]}"),
        name=metadata.name,
        namespace=metadata.namespace,
        addresses=ips,
        trust_domain=options.trust_domain,
        node=endpoint.node_name,
        workload_name=metadata.name,
        canonical_name=metadata.name,
        canonical_revision="latest",
        cluster_id=options.cluster_id,
        status=WorkloadStatus.HEALTHY if endpoint.conditions.ready else WorkloadStatus.UNHEALTHY,
        network_mode=NetworkMode.HOST_NETWORK,
        locality=place,
        services=services,
    )
