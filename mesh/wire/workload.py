"""istio.workload.Address to and from the model.

Decoding is strict: what is not understood rejects the resource, whose last good version then stays in force. Two
fields are lenient because Istio's ztunnel is: an unknown `visibility` is PUBLIC, and extensions are not read.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError
from google.protobuf.wrappers_pb2 import UInt32Value

from mesh.model.address import packed
from mesh.model.identity import DEFAULT_TRUST_DOMAIN
from mesh.model.workload import (
    ApplicationTunnel,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    Locality,
    NetworkMode,
    PolicyKey,
    PortMapping,
    Scope,
    Service,
    ServiceKey,
    TunnelApplicationProtocol,
    TunnelProtocol,
    Visibility,
    WaypointBinding,
    WaypointFailure,
    WeightedGateway,
    Workload,
    WorkloadStatus,
    WorkloadType,
    WorkloadUid,
)
from mesh.wire.address import (
    decode_gateway,
    decode_ip,
    decode_network_address,
    encode_gateway,
    encode_network_address,
    service_key,
)
from mesh.wire.errors import InvalidField, InvalidResource, choice, port
from mesh.wire.generated import workload_pb2 as wire

# What an empty field means (workload.proto); never sent, so that equal workloads are equal bytes.
_DEFAULT_SERVICE_ACCOUNT = "default"
_DEFAULT_CLUSTER = "Kubernetes"


def encode_address(value: Workload | Service) -> bytes:
    """A serialized istio.workload.Address; equal values give equal bytes."""
    if isinstance(value, Workload):
        message = wire.Address(workload=encode_workload(value))
    else:
        message = wire.Address(service=encode_service(value))
    return message.SerializeToString(deterministic=True)


def decode_address(name: str, payload: bytes) -> Workload | Service:
    """The resource called `name`. Raises InvalidResource."""
    try:
        message = wire.Address.FromString(payload)
        value = _decode(message)
    except DecodeError:
        raise InvalidResource(name, "resource", "not an istio.workload.Address") from None
    except InvalidField as error:
        raise InvalidResource(name, error.field, error.reason) from None
    own_name = value.uid if isinstance(value, Workload) else value.key
    if own_name != name:  # its removal would never find it
        raise InvalidResource(name, "name", f"the resource inside is {own_name!r}")
    return value


def _decode(message: wire.Address) -> Workload | Service:
    match message.WhichOneof("type"):
        case "workload":
            return decode_workload(message.workload)
        case "service":
            return decode_service(message.service)
        case _:
            raise InvalidField("type", "neither a workload nor a service")


def encode_workload(value: Workload) -> wire.Workload:
    return wire.Workload(
        uid=value.uid,
        name=value.name,
        namespace=value.namespace,
        addresses=[packed(ip) for ip in value.addresses],
        network=value.network,
        service_account=_omit(value.service_account, _DEFAULT_SERVICE_ACCOUNT),
        trust_domain=_omit(value.trust_domain, DEFAULT_TRUST_DOMAIN),
        tunnel_protocol=wire.TunnelProtocol.Name(value.tunnel_protocol),
        node=value.node,
        workload_name=value.workload_name,
        workload_type=wire.WorkloadType.Name(value.workload_type),
        canonical_name=value.canonical_name,
        canonical_revision=value.canonical_revision,
        cluster_id=_omit(value.cluster_id, _DEFAULT_CLUSTER),
        status=wire.WorkloadStatus.Name(value.status),
        network_mode=wire.NetworkMode.Name(value.network_mode),
        native_tunnel=value.native_tunnel,
        hostname=value.hostname,
        waypoint=encode_gateway(value.waypoint),
        waypoint_binding=wire.WaypointBinding.Name(value.waypoint_binding),
        waypoint_failure=wire.WaypointFailure.Name(value.waypoint_failure),
        network_gateway=encode_gateway(value.network_gateway),
        application_tunnel=_encode_tunnel(value.application_tunnel),
        locality=_encode_locality(value.locality),
        capacity=None if value.capacity == 1 else UInt32Value(value=value.capacity),
        authorization_policies=value.authorization_policies,
        services={key: wire.PortList(ports=_encode_ports(ports)) for key, ports in value.services.items()},
    )


def decode_workload(message: wire.Workload) -> Workload:
    """Raises InvalidField."""
    if not message.uid:
        raise InvalidField("uid", "it is empty")
    return Workload(
        uid=WorkloadUid(message.uid),
        name=message.name,
        namespace=message.namespace,
        addresses=tuple(decode_ip(address, "addresses") for address in message.addresses),
        network=message.network,
        service_account=message.service_account or _DEFAULT_SERVICE_ACCOUNT,
        trust_domain=message.trust_domain or DEFAULT_TRUST_DOMAIN,
        tunnel_protocol=choice(TunnelProtocol, message.tunnel_protocol, "tunnel_protocol"),
        node=message.node,
        workload_name=message.workload_name,
        workload_type=choice(WorkloadType, message.workload_type, "workload_type"),
        canonical_name=message.canonical_name,
        canonical_revision=message.canonical_revision,
        cluster_id=message.cluster_id or _DEFAULT_CLUSTER,
        status=choice(WorkloadStatus, message.status, "status"),
        network_mode=choice(NetworkMode, message.network_mode, "network_mode"),
        native_tunnel=message.native_tunnel,
        hostname=message.hostname,
        waypoint=decode_gateway(message.waypoint, "waypoint") if message.HasField("waypoint") else None,
        waypoint_binding=choice(WaypointBinding, message.waypoint_binding, "waypoint_binding"),
        waypoint_failure=choice(WaypointFailure, message.waypoint_failure, "waypoint_failure"),
        network_gateway=(
            decode_gateway(message.network_gateway, "network_gateway") if message.HasField("network_gateway") else None
        ),
        application_tunnel=(
            _decode_tunnel(message.application_tunnel) if message.HasField("application_tunnel") else None
        ),
        locality=Locality(message.locality.region, message.locality.zone, message.locality.subzone),
        capacity=message.capacity.value if message.HasField("capacity") else 1,
        authorization_policies=tuple(PolicyKey(key) for key in message.authorization_policies),
        services=_decode_services(message),
    )


def encode_service(value: Service) -> wire.Service:
    return wire.Service(
        name=value.name,
        namespace=value.namespace,
        hostname=value.hostname,
        addresses=[encode_network_address(address) for address in value.addresses],
        ports=_encode_ports(value.ports),
        subject_alt_names=value.subject_alt_names,
        waypoint=encode_gateway(value.waypoint),
        weighted_waypoints=[
            wire.WeightedWaypoint(destination=encode_gateway(each.destination), weight=each.weight)
            for each in value.weighted_waypoints
        ],
        waypoint_failure=wire.WaypointFailure.Name(value.waypoint_failure),
        load_balancing=_encode_load_balancing(value.load_balancing),
        ip_families=wire.IPFamilies.Name(value.ip_families),
        canonical=value.canonical,
        visibility=wire.Visibility.Name(value.visibility),
    )


def decode_service(message: wire.Service) -> Service:
    """Raises InvalidField."""
    service_key(f"{message.namespace}/{message.hostname}", "hostname")
    return Service(
        name=message.name,
        namespace=message.namespace,
        hostname=message.hostname,
        addresses=tuple(decode_network_address(address, "addresses") for address in message.addresses),
        ports=_decode_ports(message.ports, "ports"),
        subject_alt_names=tuple(message.subject_alt_names),
        waypoint=decode_gateway(message.waypoint, "waypoint") if message.HasField("waypoint") else None,
        weighted_waypoints=tuple(
            WeightedGateway(decode_gateway(each.destination, "weighted_waypoints"), each.weight)
            for each in message.weighted_waypoints
        ),
        waypoint_failure=choice(WaypointFailure, message.waypoint_failure, "waypoint_failure"),
        load_balancing=_decode_load_balancing(message.load_balancing) if message.HasField("load_balancing") else None,
        ip_families=choice(IpFamilies, message.ip_families, "ip_families"),
        canonical=message.canonical,
        visibility=Visibility.NAMESPACE if message.visibility == wire.NAMESPACE else Visibility.PUBLIC,
    )


def _encode_ports(ports: tuple[PortMapping, ...]) -> list[wire.Port]:
    return [wire.Port(service_port=each.service_port, target_port=each.target_port) for each in ports]


def _decode_ports(ports: Iterable[wire.Port], field: str) -> tuple[PortMapping, ...]:
    return tuple(PortMapping(port(each.service_port, field), port(each.target_port, field)) for each in ports)


def _decode_services(message: wire.Workload) -> dict[ServiceKey, tuple[PortMapping, ...]]:
    return {
        service_key(key, "services"): _decode_ports(ports.ports, f"services[{key}]")
        for key, ports in message.services.items()
    }


def _encode_tunnel(tunnel: ApplicationTunnel | None) -> wire.ApplicationTunnel | None:
    if tunnel is None:
        return None
    return wire.ApplicationTunnel(protocol=wire.ApplicationTunnel.Protocol.Name(tunnel.protocol), port=tunnel.port)


def _decode_tunnel(message: wire.ApplicationTunnel) -> ApplicationTunnel:
    return ApplicationTunnel(
        choice(TunnelApplicationProtocol, message.protocol, "application_tunnel.protocol"),
        port(message.port, "application_tunnel.port"),
    )


def _encode_locality(locality: Locality) -> wire.Locality | None:
    if locality == Locality():
        return None
    return wire.Locality(region=locality.region, zone=locality.zone, subzone=locality.subzone)


def _encode_load_balancing(value: LoadBalancing | None) -> wire.LoadBalancing | None:
    if value is None:
        return None
    return wire.LoadBalancing(
        routing_preference=[wire.LoadBalancing.Scope.Name(scope) for scope in value.routing_preference],
        mode=wire.LoadBalancing.Mode.Name(value.mode),
        health_policy=wire.LoadBalancing.HealthPolicy.Name(value.health_policy),
    )


def _decode_load_balancing(message: wire.LoadBalancing) -> LoadBalancing:
    return LoadBalancing(
        tuple(choice(Scope, each, "load_balancing.routing_preference") for each in message.routing_preference),
        choice(LoadBalancingMode, message.mode, "load_balancing.mode"),
        choice(HealthPolicy, message.health_policy, "load_balancing.health_policy"),
    )


def _omit(value: str, default: str) -> str:
    return "" if value == default else value
