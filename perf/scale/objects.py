"""The objects of a large cluster, as kubelets and the EndpointSlice controller would have left them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from mesh.model.enrolment import REDIRECTION, REDIRECTION_ENABLED

Object = dict[str, Any]

PODS_PER_NODE = 100  # Kubernetes' own limit is 110
SERVICES_PER_NAMESPACE = 50
_FIRST_POD = int(IPv4Address("10.128.0.1"))
_FIRST_MOVED = int(IPv4Address("10.192.0.1"))  # the addresses that pods move to: nobody else's
_SINCE = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Size:
    """Pods are spread evenly over services and nodes."""

    services: int
    pods: int

    @property
    def nodes(self) -> int:
        return -(-self.pods // PODS_PER_NODE)

    @property
    def namespaces(self) -> int:
        return -(-self.services // SERVICES_PER_NAMESPACE)

    @property
    def resources(self) -> int:
        """What a ztunnel gets of them."""
        return self.services + self.pods


def namespaces(size: Size) -> Iterator[Object]:
    for number in range(size.namespaces):
        yield {"metadata": {"name": f"scale-{number}", "labels": {"istio.io/dataplane-mode": "ambient"}}}


def nodes(size: Size) -> Iterator[Object]:
    for number in range(size.nodes):
        zone = {"topology.kubernetes.io/region": "here", "topology.kubernetes.io/zone": f"zone-{number % 3}"}
        yield {"metadata": {"name": node_name(number), "labels": zone}}


def node_name(number: int) -> str:
    return f"scale-{number}"


def services(size: Size) -> Iterator[Object]:
    """The API server gives them their addresses."""
    for number in range(size.services):
        ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "grpc", "port": 90, "targetPort": "grpc"}]
        yield {
            "metadata": {"name": _service(number), "namespace": _namespace(number)},
            "spec": {"selector": {"app": _service(number)}, "ports": ports},
        }


@dataclass(frozen=True, slots=True)
class PodPlace:
    """The pod of a number: which service has it, and how it is called."""

    number: int
    service: int

    @property
    def name(self) -> str:
        return f"{_service(self.service)}-7d4b9c-{self.number}"

    @property
    def namespace(self) -> str:
        return _namespace(self.service)

    @property
    def ip(self) -> str:
        return str(IPv4Address(_FIRST_POD + self.number))

    @property
    def other_ip(self) -> str:
        return str(IPv4Address(_FIRST_MOVED + self.number))


def place(size: Size, number: int) -> PodPlace:
    return PodPlace(number, number % size.services)


def pod(size: Size, number: int) -> Object:
    """As a ReplicaSet makes it, already bound to its node."""
    where, service = place(size, number), _service(number % size.services)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{service}-7d4b9c", "uid": service}
    container = {
        "name": "main",
        "image": "registry.example/shop/server:1.27.3",
        "command": ["/server", "--listen=:8080"],
        "env": [{"name": f"SETTING_{each}", "value": f"value of {each}"} for each in range(6)],
        "ports": [{"name": "http", "containerPort": 8080}, {"name": "grpc", "containerPort": 9090}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
    }
    return {
        "metadata": {
            "name": where.name,
            "namespace": where.namespace,
            "labels": {"app": service, "pod-template-hash": "7d4b9c", "app.kubernetes.io/version": "1.27.3"},
            "annotations": {REDIRECTION: REDIRECTION_ENABLED, "prometheus.io/scrape": "true"},
            "ownerReferences": [owner | {"controller": True}],
        },
        "spec": {
            "nodeName": node_name(number % size.nodes),
            "serviceAccountName": service,
            "containers": [container],
        },
    }


def status(ip: str, ready: bool = True) -> Object:
    """What a kubelet writes of a running pod."""
    conditions = [
        {"type": name, "status": "True", "lastTransitionTime": _SINCE}
        for name in ("PodScheduled", "Initialized", "PodReadyToStartContainers")
    ]
    conditions += [
        {"type": name, "status": "True" if ready else "False", "lastTransitionTime": _SINCE}
        for name in ("ContainersReady", "Ready")
    ]
    container = {
        "name": "main",
        "image": "registry.example/shop/server:1.27.3",
        "imageID": f"registry.example/shop/server@sha256:{'0' * 64}",
        "containerID": f"containerd://{'0' * 64}",
        "ready": ready,
        "restartCount": 0,
        "state": {"running": {"startedAt": _SINCE}},
    }
    return {
        "phase": "Running",
        "hostIP": "192.0.2.1",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": _SINCE,
        "conditions": conditions,
        "containerStatuses": [container],
    }


def endpoints(size: Size, service: int) -> list[Object]:
    return [
        {
            "addresses": [place(size, number).ip],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": node_name(number % size.nodes),
            "targetRef": {"kind": "Pod", "namespace": _namespace(service), "name": place(size, number).name},
        }
        for number in range(service, size.pods, size.services)
    ]


def slices(size: Size) -> Iterator[Object]:
    for number in range(size.services):
        yield {
            "metadata": {
                "name": slice_name(number),
                "namespace": _namespace(number),
                "labels": {"kubernetes.io/service-name": _service(number)},
            },
            "addressType": "IPv4",
            "endpoints": endpoints(size, number),
            "ports": [
                {"name": "http", "port": 8080, "protocol": "TCP"},
                {"name": "grpc", "port": 9090, "protocol": "TCP"},
            ],
        }


def slice_name(service: int) -> str:
    return f"{_service(service)}-x7k2p"


def _service(number: int) -> str:
    return f"service-{number}"


def _namespace(service: int) -> str:
    return f"scale-{service // SERVICES_PER_NAMESPACE}"
