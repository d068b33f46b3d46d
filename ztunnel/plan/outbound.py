"""Where a connection that a pod opens goes: past the mesh, through a tunnel, or nowhere.

A service's address comes before a pod's, a service's waypoint before its endpoints, a pod's waypoint before the pod; a
waypoint that takes ALL of a pod's connections also those to a service that has none itself, once the pod is drawn.
What the mesh demands and cannot give is refused, never sent in plain text.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from msgspec.structs import replace

from mesh.model.address import SocketAddress, is_loopback
from mesh.model.balance import Chance, Dial, Unavailable, Upstream, choose_ip, choose_upstream
from mesh.model.identity import SpiffeId
from mesh.model.ports import HBONE, PROXY_PORTS
from mesh.model.state import MeshState
from mesh.model.workload import (
    GatewayAddress,
    LoadBalancingMode,
    Service,
    TunnelProtocol,
    WaypointBinding,
    WaypointFailure,
    Workload,
    WorkloadUid,
)
from ztunnel.plan.bound import name
from ztunnel.plan.plan import Flag, OutboundPlan, PassThrough, Refuse, Tunnel


def plan_outbound(
    mesh: MeshState,
    source: WorkloadUid,
    destination: SocketAddress,
    chance: Chance,
    avoid: frozenset[WorkloadUid] = frozenset(),
) -> OutboundPlan:
    """Decide on one connection of the pod `source` to `destination`, the address that its app dialled.

    `avoid` names endpoints (`Tunnel.workload`) that could not be dialled for this connection: when no byte has been
    sent, the caller plans again without them.
    """
    own = mesh.workload(source)
    if own is None:
        return Refuse(f"workload {source} is not known yet")
    if destination.port in PROXY_PORTS and (is_loopback(destination.ip) or destination.ip in own.addresses):
        return Refuse(f"{destination} is a port of the pod's own proxy", Flag.DENY)
    dial = Dial(mesh, own, destination, chance, avoid)
    service = mesh.service_at(own.network, destination.ip, own.namespace)
    if service is not None:
        return _to_service(dial, service)
    target = mesh.workload_at(own.network, destination.ip)
    if target is None:
        return PassThrough(destination, "the destination is not in the mesh")
    return _to_workload(dial, target)


def _to_service(dial: Dial, service: Service) -> OutboundPlan:
    waypoint = _waypoint_of(service, dial.chance)
    if waypoint is not None and not _is_waypoint(dial, waypoint):
        plan = _to_waypoint(dial, waypoint, f"service {service.key}", service.hostname)
        if not _may_do_without(plan, service.waypoint_failure):
            return plan
    if service.load_balancing is not None and service.load_balancing.mode is LoadBalancingMode.PASSTHROUGH:
        return PassThrough(dial.destination, f"service {service.key} is passed through", service.hostname)
    upstream = choose_upstream(dial, service)
    if isinstance(upstream, Unavailable):
        return Refuse(upstream.reason)
    if upstream.workload.waypoint_binding is WaypointBinding.ALL:
        by_waypoint = _to_own_waypoint(dial, upstream.workload, service.hostname)
        if by_waypoint is not None:
            return by_waypoint
    return _direct(dial.source, upstream, service)


def _to_workload(dial: Dial, target: Workload) -> OutboundPlan:
    plan = _to_own_waypoint(dial, target)
    if plan is not None:
        return plan
    if target.uid in dial.avoid:
        return Refuse(f"workload {target.uid} could not be reached")
    return _direct(dial.source, Upstream(target, dial.destination))


def _direct(own: Workload, upstream: Upstream, service: Service | None = None) -> OutboundPlan:
    target, address = upstream.workload, upstream.address
    hostname = service.hostname if service else ""
    if target.uid == own.uid:
        return PassThrough(address, "the pod dials itself", hostname, target.uid)
    if target.tunnel_protocol is not TunnelProtocol.HBONE:
        return PassThrough(address, f"workload {target.uid} takes no tunnels", hostname, target.uid)
    identities = _identities(target, service.subject_alt_names if service else ())
    return Tunnel(str(address), SocketAddress(address.ip, HBONE), identities, target.uid, hostname)


# --- waypoints


def _waypoint_of(service: Service, chance: Chance) -> GatewayAddress | None:
    """One of the weighted waypoints in proportion to their weights, else the only one."""
    total = sum(each.weight for each in service.weighted_waypoints)
    left = int(chance() * total) if total else 0
    for each in service.weighted_waypoints:
        if left < each.weight:
            return each.destination
        left -= each.weight
    return service.waypoint


def _to_own_waypoint(dial: Dial, target: Workload, hostname: str = "") -> Tunnel | Refuse | None:
    """The way to `target` by the waypoint of the workload itself; None if it is to be dialled directly."""
    waypoint = target.waypoint
    if waypoint is None or target.uid == dial.source.uid or _is_waypoint(dial, waypoint):
        return None
    plan = _to_waypoint(dial, waypoint, f"workload {target.uid}", hostname)
    return None if _may_do_without(plan, target.waypoint_failure) else plan


def _may_do_without(plan: Tunnel | Refuse, failure: WaypointFailure) -> bool:
    return isinstance(plan, Refuse) and failure is WaypointFailure.OPEN


def _is_waypoint(dial: Dial, waypoint: GatewayAddress) -> bool:
    """Whether the caller is that waypoint: what it sends has been through it."""
    found = dial.mesh.gateway(waypoint, dial.source.network, dial.source.namespace)
    if isinstance(found, Service):
        return found.key in dial.source.services
    return found is not None and found.uid == dial.source.uid


def _to_waypoint(dial: Dial, waypoint: GatewayAddress, bound: str, hostname: str = "") -> Tunnel | Refuse:
    """A tunnel to one pod of the waypoint, in it CONNECT to the address as the app dialled it."""
    found = dial.mesh.gateway(waypoint, dial.source.network, dial.source.namespace)
    if found is None:
        return Refuse(f"the waypoint {name(waypoint)} of {bound} is not known")
    there = replace(dial, destination=SocketAddress(dial.destination.ip, waypoint.hbone_port or HBONE))
    upstream = choose_upstream(there, found) if isinstance(found, Service) else _waypoint_workload(there, found)
    if isinstance(upstream, Unavailable):
        return Refuse(f"the waypoint of {bound} is not ready: {upstream.reason}", passing=True)
    return Tunnel(
        authority=str(dial.destination),
        dial=upstream.address,
        identities=_identities(upstream.workload, found.subject_alt_names if isinstance(found, Service) else ()),
        workload=upstream.workload.uid,
        service=hostname,
        via_waypoint=True,
    )


def _waypoint_workload(dial: Dial, waypoint: Workload) -> Upstream | Unavailable:
    if waypoint.uid in dial.avoid:
        return Unavailable(f"workload {waypoint.uid} could not be reached")
    if waypoint.network != dial.source.network:
        return Unavailable(f"no route to network {waypoint.network!r}, where workload {waypoint.uid} is")
    ip = choose_ip(waypoint, dial.destination.ip)
    if ip is None:
        return Unavailable(f"workload {waypoint.uid} has no address")
    return Upstream(waypoint, SocketAddress(ip, dial.destination.port))


def _identities(workload: Workload, names: Iterable[str]) -> frozenset[SpiffeId]:
    """Whom a tunnel's other end may prove to be. Names that are not SPIFFE IDs cannot match a certificate of ours."""
    return _identities_of(workload.trust_domain, workload.namespace, workload.service_account, tuple(names))


@lru_cache(maxsize=4096)  # one for each account that is dialled; that it is the same object makes it a quick key
def _identities_of(trust_domain: str, namespace: str, account: str, names: tuple[str, ...]) -> frozenset[SpiffeId]:
    return frozenset({SpiffeId(trust_domain, namespace, account), *filter(None, map(_parsed, names))})


def _parsed(name: str) -> SpiffeId | None:
    try:
        return SpiffeId.parse(name)
    except ValueError:
        return None
