"""Short ways to write Kubernetes objects and to hand them to a compiler."""

from __future__ import annotations

from typing import Any

from controller.compile.compiler import Changes, Compiler
from controller.compile.options import MeshOptions
from controller.compile.published import Published
from controller.compile.wanted import Wanted
from controller.store.interface import Change, Event, Key
from controller.store.kinds import key_of
from mesh.model.routing import PortRouting, ServiceRouting
from mesh.model.workload import ServiceKey, Workload, WorkloadUid

Object = dict[str, Any]


def _object(api_version: str, kind: str, name: str, namespace: str | None, metadata: Object, **rest: Any) -> Object:
    place = {"namespace": namespace} if namespace is not None else {}
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **place, **metadata}, **rest}


def pod(
    name: str = "web-1",
    *ips: str,
    namespace: str = "shop",
    node: str = "node1",
    account: str = "web",
    phase: str = "Running",
    ready: bool = True,
    host_network: bool = False,
    **metadata: Any,
) -> Object:
    return _object(
        "v1",
        "Pod",
        name,
        namespace,
        {"uid": f"uid-of-{name}", **metadata},
        spec={
            "nodeName": node,
            "serviceAccountName": account,
            "hostNetwork": host_network,
            "containers": [{"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}],
        },
        status={
            "phase": phase,
            "podIPs": [{"ip": ip} for ip in ips],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    )


def service(
    name: str = "web", *ips: str, namespace: str = "shop", metadata: Object | None = None, **spec: Any
) -> Object:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return _object(
        "v1", "Service", name, namespace, metadata or {}, spec={"clusterIPs": list(ips), "ports": ports, **spec}
    )


def endpoint_slice(
    name: str, of: str, endpoints: list[Object], namespace: str = "shop", ports: Any = None, family: str = "IPv4"
) -> Object:
    return _object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        name,
        namespace,
        {"labels": {"kubernetes.io/service-name": of}},
        addressType=family,
        endpoints=endpoints,
        ports=[{"name": "http", "port": 8080}] if ports is None else ports,
    )


def to_pod(name: str, ip: str = "10.1.0.1", **more: Any) -> Object:
    return {"addresses": [ip], "targetRef": {"kind": "Pod", "name": name, "namespace": "shop", **more}}


def node(name: str = "node1", **labels: str) -> Object:
    return _object("v1", "Node", name, None, {"labels": labels})


def namespace(name: str = "shop", labels: Object | None = None, annotations: Object | None = None) -> Object:
    return _object("v1", "Namespace", name, None, {"labels": labels or {}, "annotations": annotations or {}})


def applied(obj: Object) -> Event:
    return Event(Change.APPLIED, key_of(obj), obj)


def deleted(obj: Object) -> Event:
    return Event(Change.DELETED, key_of(obj), obj)


class Mesh:
    """A compiler and the state that its updates lead to."""

    def __init__(self, *objects: Object, options: MeshOptions | None = None) -> None:
        self.compiler = Compiler(options or MeshOptions())
        self.workloads: dict[WorkloadUid, Workload] = {}
        self.services: dict[ServiceKey, Any] = {}
        self.routing: dict[str, Published] = {}
        self.apply(*objects)

    def apply(self, *objects: Object) -> Changes:
        return self.take(*map(applied, objects))

    def delete(self, *objects: Object) -> Changes:
        return self.take(*map(deleted, objects))

    def take(self, *events: Event) -> Changes:
        for event in events:
            self.compiler.take(event)
        changes = self.compiler.changes()
        update = changes.update
        for uid in update.removed_workloads:
            del self.workloads[uid]
        for key in update.removed_services:
            del self.services[key]
        self.workloads.update((workload.uid, workload) for workload in update.workloads)
        self.services.update((service.key, service) for service in update.services)
        for gone in changes.routing.removed:
            del self.routing[gone]
        self.routing.update((published.value.key, published) for published in changes.routing.changed)
        return changes

    def pod(self, name: str = "web-1") -> Workload:
        return self.workloads[WorkloadUid(f"Kubernetes//Pod/shop/{name}")]

    def service(self, name: str = "web") -> Any:
        return self.services[ServiceKey(f"shop/{name}.shop.svc.cluster.local")]

    def ports(self, service: str = "web", waypoint: str = "shop/gate") -> tuple[PortRouting, ...]:
        """What a waypoint is told of a service of namespace shop."""
        value = self.routing[f"service//{waypoint}//shop/{service}.shop.svc.cluster.local"].value
        assert isinstance(value, ServiceRouting)
        return value.ports

    def conditions(self, obj: Object) -> dict[str, Wanted]:
        """What the status of an object should say, by type; of a route, for its only parentRef."""
        wanted = self.compiler.wanted_status(key_of(obj))
        conditions = wanted.conditions
        if wanted.parents is not None:
            (parent,) = wanted.parents
            conditions = parent.conditions
        return {each.type: each for each in conditions}

    def sentences(self, key: Key | None = None) -> list[str]:
        problems = self.compiler.problems() if key is None else self.compiler.problems_of(key)
        return [str(problem) for problem in problems]
