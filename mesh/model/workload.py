"""What the mesh consists of: workloads and services, as istio.workload.Address has them (workload.proto).

Field names and defaults are Istio's. Everything is immutable, so a snapshot can be shared, compared and sent to another
process as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NewType

from mesh.model.address import Ip, is_v6
from mesh.model.identity import DEFAULT_TRUST_DOMAIN, SpiffeId

WorkloadUid = NewType("WorkloadUid", str)  # "<cluster>//Pod/<namespace>/<name>"
ServiceKey = NewType("ServiceKey", str)  # "<namespace>/<hostname>"
PolicyKey = NewType("PolicyKey", str)  # "<namespace>/<name>"


class TunnelProtocol(IntEnum):
    NONE = 0
    HBONE = 1


class NetworkMode(IntEnum):
    STANDARD = 0
    HOST_NETWORK = 1  # shares its node's address: never found by IP


class WorkloadStatus(IntEnum):
    HEALTHY = 0
    UNHEALTHY = 1


class WorkloadType(IntEnum):
    DEPLOYMENT = 0
    CRONJOB = 1
    POD = 2
    JOB = 3


class IpFamilies(IntEnum):
    AUTOMATIC = 0
    IPV4_ONLY = 1
    IPV6_ONLY = 2
    DUAL = 3


class Visibility(IntEnum):
    PUBLIC = 0
    NAMESPACE = 1


class TunnelApplicationProtocol(IntEnum):
    NONE = 0
    PROXY = 1  # HAProxy's PROXY protocol, version 2


class WaypointBinding(IntEnum):
    """Which connections a workload's own waypoint takes. Istio's control planes never say; its ztunnels ignore it."""

    NONE = 0  # as Istio: those to its addresses; nobody insists on it
    WORKLOAD = 1  # those to its addresses
    ALL = 2  # also those to services that are not bound themselves, once this workload is chosen as their endpoint


class WaypointFailure(IntEnum):
    """What holds for connections that do not pass the waypoint that they should pass."""

    UNSPECIFIED = 0  # a service as in Istio: clients refuse to do without it, a destination takes what comes round it
    CLOSED = 1  # refused by clients, and by the destination
    OPEN = 2  # let through by both


class Scope(IntEnum):
    """What two workloads may have in common, for locality load balancing."""

    REGION = 1
    ZONE = 2
    SUBZONE = 3
    NODE = 4
    CLUSTER = 5
    NETWORK = 6


class LoadBalancingMode(IntEnum):
    UNSPECIFIED = 0
    STRICT = 1
    FAILOVER = 2
    PASSTHROUGH = 3


class HealthPolicy(IntEnum):
    ONLY_HEALTHY = 0
    ALLOW_ALL = 1


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One port of a service. `target_port` 0 means a named port: look at the endpoint."""

    service_port: int
    target_port: int


@dataclass(frozen=True, slots=True)
class NetworkAddress:
    """An address inside a named network (Istio's network; "" is the default one). A CIDR when `length` is given."""

    network: str
    ip: Ip
    length: int | None = None

    @property
    def is_block(self) -> bool:
        """Whether it stands for more than one address."""
        return self.length is not None and self.length < (128 if is_v6(self.ip) else 32)


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where a waypoint or a network gateway is: a service's hostname or an address, and its HBONE port."""

    destination: ServiceKey | NetworkAddress
    hbone_port: int


@dataclass(frozen=True, slots=True)
class WeightedGateway:
    destination: GatewayAddress
    weight: int


@dataclass(frozen=True, slots=True)
class Locality:
    region: str = ""
    zone: str = ""
    subzone: str = ""


@dataclass(frozen=True, slots=True)
class ApplicationTunnel:
    """How a waypoint that is not HBONE-aware takes tunnelled connections."""

    protocol: TunnelApplicationProtocol = TunnelApplicationProtocol.NONE
    port: int = 0


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    routing_preference: tuple[Scope, ...] = ()
    mode: LoadBalancingMode = LoadBalancingMode.UNSPECIFIED
    health_policy: HealthPolicy = HealthPolicy.ONLY_HEALTHY


@dataclass(frozen=True, slots=True)
class Workload:
    """One pod (or VM, or gateway) that connections come from or go to."""

    uid: WorkloadUid
    name: str
    namespace: str
    addresses: tuple[Ip, ...] = ()
    network: str = ""
    service_account: str = "default"
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    tunnel_protocol: TunnelProtocol = TunnelProtocol.NONE
    node: str = ""
    workload_name: str = ""
    workload_type: WorkloadType = WorkloadType.POD
    canonical_name: str = ""
    canonical_revision: str = ""
    cluster_id: str = "Kubernetes"
    status: WorkloadStatus = WorkloadStatus.HEALTHY
    network_mode: NetworkMode = NetworkMode.STANDARD
    native_tunnel: bool = False
    hostname: str = ""
    waypoint: GatewayAddress | None = None
    waypoint_binding: WaypointBinding = WaypointBinding.NONE
    waypoint_failure: WaypointFailure = WaypointFailure.UNSPECIFIED
    network_gateway: GatewayAddress | None = None
    application_tunnel: ApplicationTunnel | None = None
    locality: Locality = Locality()
    capacity: int = 1  # weight for load balancing
    authorization_policies: tuple[PolicyKey, ...] = ()
    services: dict[ServiceKey, tuple[PortMapping, ...]] = field(default_factory=dict)

    @property
    def identity(self) -> SpiffeId:
        return SpiffeId(self.trust_domain, self.namespace, self.service_account)

    def __hash__(self) -> int:
        return hash(self.uid)


@dataclass(frozen=True, slots=True)
class Service:
    """A name with virtual addresses that stands for endpoints. Headless services have no addresses."""

    name: str
    namespace: str
    hostname: str
    addresses: tuple[NetworkAddress, ...] = ()
    ports: tuple[PortMapping, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    waypoint: GatewayAddress | None = None
    weighted_waypoints: tuple[WeightedGateway, ...] = ()
    waypoint_failure: WaypointFailure = WaypointFailure.UNSPECIFIED
    load_balancing: LoadBalancing | None = None
    ip_families: IpFamilies = IpFamilies.AUTOMATIC
    canonical: bool = False
    visibility: Visibility = Visibility.PUBLIC

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(f"{self.namespace}/{self.hostname}")
