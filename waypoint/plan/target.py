"""What a CONNECT at this waypoint means: a port of a service that it serves, a pod that it serves, or neither."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.model.address import canonical, is_ip
from mesh.model.routing import AppProtocol, PortRouting
from mesh.model.workload import Service, ServiceKey, Workload
from waypoint.plan.world import World


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    service: Service
    routing: PortRouting

    @property
    def protocol(self) -> AppProtocol:
        return self.routing.protocol

    def __str__(self) -> str:
        return f"{self.service.hostname}:{self.routing.port}"


@dataclass(frozen=True, slots=True)
class WorkloadTarget:
    """A pod that was dialled by its own address. `service`: one of its services on that port, for its name."""

    workload: Workload
    port: int
    protocol: AppProtocol = AppProtocol.AUTO
    service: ServiceKey | None = None

    def __str__(self) -> str:
        return f"{self.workload.namespace}/{self.workload.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status of the answer to CONNECT: 404 for what is not served here, 503 for what cannot be served now."""

    status: int
    reason: str


Target = ServiceTarget | WorkloadTarget


def find_target(world: World, host: str, port: int) -> Target | Refusal:
    """`host` is an IP address or a service's hostname, as the client's ztunnel knew it."""
    if not world.known:
        return Refusal(503, "the waypoint does not know the mesh yet")
    mesh, own = world.mesh, world.own
    if not is_ip(host):
        named = mesh.service_named(host, own.namespace)
        return _service(world, named, port) if named else Refusal(404, f"no service has the hostname {host}")
    ip = canonical(host)
    service = mesh.service_at(own.network, ip, own.namespace)
    if service is not None:
        return _service(world, service, port)
    workload = mesh.workload_at(own.network, ip)
    if workload is None:
        return Refusal(404, f"{host} is neither a service nor a workload of the mesh")
    return _workload(world, workload, port)


def _service(world: World, service: Service, port: int) -> Target | Refusal:
    gateway = world.gateway
    if world.service(service.key) is None or not gateway.services:
        return Refusal(404, f"service {service.key} is not served by waypoint {gateway.waypoint}")
    routing = world.port(service.key, port)
    if routing is None:
        return Refusal(404, f"service {service.key} has no port {port}")
    return ServiceTarget(service, routing)


def _workload(world: World, workload: Workload, port: int) -> Target | Refusal:
    gateway, own = world.gateway, world.own
    if not gateway.workloads:
        return Refusal(404, f"waypoint {gateway.waypoint} takes no connections to pod addresses")
    if gateway.service_account and not is_ours(world, workload):
        return Refusal(404, f"workload {workload.uid} is not of service account {gateway.service_account}")
    bound = world.mesh.gateway(workload.waypoint, own.network, own.namespace) if workload.waypoint else None
    if bound is None or (bound.namespace, bound.name) not in ((own.namespace, own.gateway), _pod_name(world)):
        return Refusal(404, f"workload {workload.uid} is not bound to waypoint {gateway.waypoint}")
    protocol, service = _called(world, workload, port)
    return WorkloadTarget(workload, port, protocol, service)


def _pod_name(world: World) -> tuple[str, str]:
    return world.workload.namespace, world.workload.name


def is_ours(world: World, workload: Workload) -> bool:
    """Whether a waypoint of one service account is that of this workload. The account is one of its own namespace."""
    return (workload.namespace, workload.service_account) == (world.own.namespace, world.gateway.service_account)


def _called(world: World, workload: Workload, port: int) -> tuple[AppProtocol, ServiceKey | None]:
    """What the pod's port speaks, if one of its services says so."""
    first: ServiceKey | None = None
    for key, mappings in workload.services.items():
        for mapping in mappings:
            if mapping.target_port == port:
                first = first or key
                routing = world.port(key, mapping.service_port)
                if routing is not None and routing.protocol is not AppProtocol.AUTO:
                    return routing.protocol, key
    return AppProtocol.AUTO, first
