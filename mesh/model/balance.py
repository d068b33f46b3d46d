"""Which endpoint of a service takes a connection: by health, locality and weight, and at which address and port."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from mesh.model.address import Ip, SocketAddress, is_v6
from mesh.model.index import Endpoints
from mesh.model.state import MeshState
from mesh.model.workload import (
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    LoadBalancingMode,
    Scope,
    Service,
    Workload,
    WorkloadUid,
)

Chance = Callable[[], float]  # a number in [0, 1), as random.random gives


class Dial(Struct, frozen=True):
    """One connection that is being planned: who opens it, to what address, and which endpoints have failed it."""

    mesh: MeshState
    source: Workload
    destination: SocketAddress
    chance: Chance
    avoid: frozenset[WorkloadUid] = frozenset()


class Upstream(Struct, frozen=True):
    """An endpoint, and where its app listens for what the service's port stands for."""

    workload: Workload
    address: SocketAddress


class Unavailable(Struct, frozen=True):
    """No endpoint can take the connection."""

    reason: str


def choose_upstream(dial: Dial, service: Service) -> Upstream | Unavailable:
    """Draw one endpoint of the service whose address is dialled; those to be avoided are left out.

    One draw suffices when it is usable; a second one, among the usable, gives each of those the same probability.
    """
    port = dial.destination.port
    if all(each.service_port != port for each in service.ports):
        return Unavailable(f"service {service.key} has no port {port}")
    balancing = service.load_balancing or LoadBalancing()
    candidates = dial.mesh.endpoints(service.key, healthy=balancing.health_policy is HealthPolicy.ONLY_HEALTHY)
    if not _prefers(balancing):
        upstream = _upstream(dial, service, candidates.draw(dial.chance()))
        if upstream is not None:
            return upstream
    usable = [each for each in candidates.members if _upstream(dial, service, each)]
    drawn = Endpoints(nearest(balancing, dial.source, usable)).draw(dial.chance())
    return _upstream(dial, service, drawn) or Unavailable(_why_none(dial, service, usable))


def nearest(balancing: LoadBalancing, source: Workload, endpoints: Iterable[Workload]) -> list[Workload]:
    """Those that share most with `source`, in the order of the routing preference; STRICT needs all of it shared."""
    ranked = [(_shared(balancing.routing_preference, source, each), each) for each in endpoints]
    if not _prefers(balancing):
        return [each for _, each in ranked]
    best = max((rank for rank, _ in ranked), default=(False, 0))
    if balancing.mode is LoadBalancingMode.STRICT:
        best = (Scope.NETWORK in balancing.routing_preference[:1], len(balancing.routing_preference))
    return [each for rank, each in ranked if rank == best]


def target_port(service: Service, endpoint: Workload, service_port: int) -> int | None:
    """The endpoint's own mapping, then the service's, then what an application tunnel takes; None if there is none."""
    for port in endpoint.services.get(service.key, ()):
        if port.service_port == service_port and port.target_port:
            return port.target_port
    for port in service.ports:
        if port.service_port == service_port and port.target_port:
            return port.target_port
    if endpoint.application_tunnel is not None and endpoint.application_tunnel.port:
        return service_port
    return None


def choose_ip(workload: Workload, requested: Ip, families: IpFamilies = IpFamilies.AUTOMATIC) -> Ip | None:
    """The requested address if the workload owns it, else one of an allowed family, rather of the requested one."""
    if requested in workload.addresses:
        return requested
    allowed = [ip for ip in workload.addresses if _family_allowed(families, ip)]
    alike = [ip for ip in allowed if is_v6(ip) == is_v6(requested)]
    return next(iter(alike or allowed), None)


def _prefers(balancing: LoadBalancing) -> bool:
    return balancing.mode in (LoadBalancingMode.STRICT, LoadBalancingMode.FAILOVER)


def _shared(preference: tuple[Scope, ...], source: Workload, endpoint: Workload) -> tuple[bool, int]:
    """How many scopes are shared before the first that is not. A first scope NETWORK outweighs all others together."""
    leading = preference[:1] == (Scope.NETWORK,)
    on_network = leading and source.network == endpoint.network
    count = int(on_network)
    for scope in preference[1:] if leading else preference:
        if _scope(source, scope) != _scope(endpoint, scope):
            break
        count += 1
    return on_network, count


def _scope(workload: Workload, scope: Scope) -> str:
    match scope:
        case Scope.REGION:
            return workload.locality.region
        case Scope.ZONE:
            return workload.locality.zone
        case Scope.SUBZONE:
            return workload.locality.subzone
        case Scope.NODE:
            return workload.node
        case Scope.CLUSTER:
            return workload.cluster_id
        case Scope.NETWORK:
            return workload.network


def _family_allowed(families: IpFamilies, ip: Ip) -> bool:
    return families in (IpFamilies.AUTOMATIC, IpFamilies.DUAL) or (families is IpFamilies.IPV6_ONLY) == is_v6(ip)


def _upstream(dial: Dial, service: Service, endpoint: Workload | None) -> Upstream | None:
    if endpoint is None or endpoint.uid in dial.avoid or endpoint.network != dial.source.network:
        return None
    ip = choose_ip(endpoint, dial.destination.ip, service.ip_families)
    port = target_port(service, endpoint, dial.destination.port)
    return Upstream(endpoint, SocketAddress(ip, port)) if ip and port else None


def _why_none(dial: Dial, service: Service, usable: list[Workload]) -> str:
    """The first reason that holds, from the plainest on."""
    name = f"service {service.key}"
    members = dial.mesh.endpoints(service.key, healthy=False).members
    healthy = dial.mesh.endpoints(service.key).members
    untried = [each for each in healthy if each.uid not in dial.avoid]
    near = [each for each in untried if each.network == dial.source.network]
    addressed = [each for each in near if choose_ip(each, dial.destination.ip, service.ip_families)]
    if usable:
        return f"no endpoint of {name} is as near as its load balancing demands ({len(usable)} are farther away)"
    if not members:
        return f"{name} has no endpoints"
    if not healthy:
        return f"none of the {len(members)} endpoints of {name} is healthy"
    if not untried:
        return f"none of the {len(healthy)} healthy endpoints of {name} could be reached"
    if not near:
        return f"no route to network {untried[0].network!r}, where the endpoints of {name} are"
    if not addressed:
        return f"no endpoint of {name} has an address of a family that the service has"
    return f"no endpoint of {name} serves its port {dial.destination.port}"
