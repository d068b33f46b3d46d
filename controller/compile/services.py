"""A Service and its ports as the mesh sees them (istiod: serviceregistry/ambient/services.go)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from controller.compile.options import MeshOptions
from controller.store.shapes import EndpointSlice, Service, ServicePort
from mesh.model.address import Ip, canonical
from mesh.model.workload import (
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    NetworkAddress,
    PortMapping,
    Scope,
    ServiceKey,
)
from mesh.model.workload import Service as MeshService

SERVICE_NAME_LABEL = "kubernetes.io/service-name"  # on an EndpointSlice: whose endpoints these are
TRAFFIC_DISTRIBUTION = "networking.istio.io/traffic-distribution"  # annotation on Service or Namespace

_SAME_ZONE = (Scope.NETWORK, Scope.REGION, Scope.ZONE)
_DISTRIBUTIONS = {
    "PreferClose": _SAME_ZONE,
    "PreferSameZone": _SAME_ZONE,
    "PreferSameNode": (*_SAME_ZONE, Scope.SUBZONE, Scope.NODE),
    "Any": (),
}
_FAMILIES = {
    ("IPv4",): IpFamilies.IPV4_ONLY,
    ("IPv6",): IpFamilies.IPV6_ONLY,
    ("IPv4", "IPv6"): IpFamilies.DUAL,
    ("IPv6", "IPv4"): IpFamilies.DUAL,
}


def is_in_mesh(service: Service) -> bool:
    """An ExternalName is an alias in DNS, nothing that connections go to."""
    return service.spec.type != "ExternalName"


def hostname(service: Service, options: MeshOptions) -> str:
    return f"{service.metadata.name}.{service.metadata.namespace}.svc.{options.cluster_domain}"


def service_key(service: Service, options: MeshOptions) -> ServiceKey:
    return ServiceKey(f"{service.metadata.namespace}/{hostname(service, options)}")


def virtual_addresses(service: Service) -> tuple[Ip, ...]:
    """None for a headless service."""
    texts = service.spec.cluster_ips or (service.spec.cluster_ip,)
    return tuple(canonical(text) for text in texts if text not in ("", "None")) if is_in_mesh(service) else ()


def compile_service(
    service: Service, usable: Collection[Ip], namespace_annotations: Mapping[str, str], options: MeshOptions
) -> MeshService:
    """`usable` are those of its virtual addresses that no other service has."""
    return MeshService(
        name=service.metadata.name,
        namespace=service.metadata.namespace,
        hostname=hostname(service, options),
        addresses=tuple(NetworkAddress("", ip) for ip in virtual_addresses(service) if ip in usable),
        ports=tuple(PortMapping(port.port, _target_number(port)) for port in tcp_ports(service)),
        load_balancing=_load_balancing(service, namespace_annotations),
        ip_families=_FAMILIES.get(service.spec.ip_families, IpFamilies.AUTOMATIC),
        canonical=True,  # a Service owns its host name; only others (ServiceEntry) can be second to it
    )


def tcp_ports(service: Service) -> tuple[ServicePort, ...]:
    """The mesh carries TCP; a UDP port of the same number must not stand for it."""
    return tuple(port for port in service.spec.ports if port.protocol == "TCP")


def _target_number(port: ServicePort) -> int:
    if isinstance(port.target_port, str):
        return 0  # named: each endpoint says which number that is
    return port.target_port or port.port


def distribution_problem(annotations: Mapping[str, str]) -> str:
    """What is wrong with the annotation, "" when nothing is."""
    value = annotations.get(TRAFFIC_DISTRIBUTION, "Any")
    return "" if value in _DISTRIBUTIONS else f"{value!r} is none of {', '.join(_DISTRIBUTIONS)}; it has no effect"


def _load_balancing(service: Service, namespace_annotations: Mapping[str, str]) -> LoadBalancing | None:
    spec = service.spec
    health = HealthPolicy.ALLOW_ALL if spec.publish_not_ready_addresses else HealthPolicy.ONLY_HEALTHY
    if spec.internal_traffic_policy == "Local":
        return LoadBalancing((Scope.NODE,), LoadBalancingMode.STRICT, health)
    distribution = (
        spec.traffic_distribution
        or service.metadata.annotations.get(TRAFFIC_DISTRIBUTION)
        or namespace_annotations.get(TRAFFIC_DISTRIBUTION, "")
    )
    preference = _DISTRIBUTIONS.get(distribution, ())
    if preference:
        return LoadBalancing(preference, LoadBalancingMode.FAILOVER, health)
    return LoadBalancing(health_policy=health) if health is HealthPolicy.ALLOW_ALL else None


def port_mappings(service: Service, piece: EndpointSlice) -> tuple[PortMapping, ...]:
    """From the service's ports to the endpoints' own, joined by port name: the slice has resolved named ports."""
    numbers = {port.name: port.port for port in piece.ports if port.protocol == "TCP" and port.port}
    return tuple(PortMapping(port.port, numbers[port.name]) for port in tcp_ports(service) if port.name in numbers)
