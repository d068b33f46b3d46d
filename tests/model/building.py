"""Short ways to write workloads and services in tests."""

from __future__ import annotations

from typing import Any

from mesh.model.address import SocketAddress, canonical
from mesh.model.state import MeshState
from mesh.model.update import MeshUpdate
from mesh.model.workload import (
    GatewayAddress,
    NetworkAddress,
    PortMapping,
    Service,
    ServiceKey,
    TunnelProtocol,
    Workload,
    WorkloadUid,
)

DOMAIN = "svc.cluster.local"


def ports(mapping: dict[int, int]) -> tuple[PortMapping, ...]:
    return tuple(PortMapping(*each) for each in mapping.items())


def pod(
    name: str,
    *ips: str,
    namespace: str = "ns1",
    services: dict[ServiceKey, dict[int, int]] | None = None,
    hbone: bool = True,
    **fields: Any,
) -> Workload:
    return Workload(
        uid=WorkloadUid(f"Kubernetes//Pod/{namespace}/{name}"),
        name=name,
        namespace=namespace,
        addresses=tuple(map(canonical, ips)),
        tunnel_protocol=TunnelProtocol.HBONE if hbone else TunnelProtocol.NONE,
        services={key: ports(mapping) for key, mapping in (services or {}).items()},
        **fields,
    )


def service(
    name: str,
    *vips: str,
    namespace: str = "ns1",
    mapping: dict[int, int] | None = None,
    network: str = "",
    hostname: str = "",
    **fields: Any,
) -> Service:
    return Service(
        name=name,
        namespace=namespace,
        hostname=hostname or f"{name}.{namespace}.{DOMAIN}",
        addresses=tuple(vip(each, network) for each in vips),
        ports=ports(mapping or {80: 8080}),
        **fields,
    )


def vip(text: str, network: str = "") -> NetworkAddress:
    """From "10.0.0.1", "10.0.0.0/8", or either with a network in front: "nw2|10.0.0.1"."""
    named, bar, rest = text.rpartition("|")
    ip, slash, length = rest.partition("/")
    return NetworkAddress(named if bar else network, canonical(ip), int(length) if slash else None)


def mesh(*things: Any) -> MeshState:
    return MeshState(update(*things))


def update(*things: Any, **fields: Any) -> MeshUpdate:
    workloads = tuple(each for each in things if isinstance(each, Workload))
    services = tuple(each for each in things if isinstance(each, Service))
    policies = tuple(each for each in things if not isinstance(each, Workload | Service))
    return MeshUpdate(workloads, services, policies, **fields)


def gateway(destination: str, port: int = 15008, network: str = "") -> GatewayAddress:
    """By IP address, or by "namespace/hostname"."""
    if "/" in destination:
        return GatewayAddress(ServiceKey(destination), port)
    return GatewayAddress(NetworkAddress(network, canonical(destination)), port)


def at(text: str) -> SocketAddress:
    return SocketAddress.parse(text)
