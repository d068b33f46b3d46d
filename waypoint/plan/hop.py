"""The next hop of a request or connection: which endpoint, at which address, through which tunnel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from mesh.model.address import SocketAddress
from mesh.model.balance import Chance, Dial, Unavailable, choose_ip, choose_upstream
from mesh.model.identity import SpiffeId
from mesh.model.index import Endpoints
from mesh.model.ports import HBONE, PROXY_PORTS
from mesh.model.workload import Service, ServiceKey, TunnelProtocol, Workload, WorkloadUid
from waypoint.plan.target import WorkloadTarget, is_ours
from waypoint.plan.world import World


@dataclass(frozen=True, slots=True)
class Hop:
    """An app at `address`: reached through a tunnel whose end proves one of `identities`, or in plain TCP if none."""

    workload: Workload
    address: SocketAddress
    identities: frozenset[SpiffeId]
    service: ServiceKey | None = None

    @property
    def tunnel(self) -> SocketAddress:
        return SocketAddress(self.address.ip, HBONE)


def hop_to_service(
    world: World, key: ServiceKey, port: int, chance: Chance, avoid: frozenset[WorkloadUid] = frozenset()
) -> Hop | Unavailable:
    """One endpoint of a service, drawn by health, nearness and weight; those to avoid are left out."""
    service = world.mesh.service(key)
    if service is None:
        return Unavailable(f"service {key} is not known")
    if world.gateway.service_account and world.service(key) is not None:
        avoid = avoid | _others(world, service)
    # A headless service has no address: any address of an endpoint will do.
    vip = next((each.ip for each in service.addresses), world.workload.addresses[0] if world.workload.addresses else "")
    dial = Dial(world.mesh, world.workload, SocketAddress(vip, port), chance, avoid)  # type: ignore[arg-type]
    found = choose_upstream(dial, service)
    if isinstance(found, Unavailable):
        return found
    return _hop(found.workload, found.address, service.subject_alt_names, key)


def hop_to_workload(target: WorkloadTarget, avoid: frozenset[WorkloadUid] = frozenset()) -> Hop | Unavailable:
    workload = target.workload
    if workload.uid in avoid:
        return Unavailable(f"workload {workload.uid} could not be reached")
    ip = choose_ip(workload, workload.addresses[0]) if workload.addresses else None
    if ip is None:
        return Unavailable(f"workload {workload.uid} has no address")
    return _hop(workload, SocketAddress(ip, target.port), (), target.service)


def _hop(workload: Workload, address: SocketAddress, names: Iterable[str], key: ServiceKey | None) -> Hop | Unavailable:
    if address.port in PROXY_PORTS:
        return Unavailable(f"port {address.port} is the proxy's own")
    if workload.tunnel_protocol is not TunnelProtocol.HBONE:
        return Hop(workload, address, frozenset(), key)
    identities = _identities(workload.trust_domain, workload.namespace, workload.service_account, tuple(names))
    return Hop(workload, address, identities, key)


@lru_cache(maxsize=4096)  # one for each account that is dialled
def _identities(trust_domain: str, namespace: str, account: str, names: tuple[str, ...]) -> frozenset[SpiffeId]:
    return frozenset({SpiffeId(trust_domain, namespace, account), *filter(None, map(_parsed, names))})


def _parsed(name: str) -> SpiffeId | None:
    try:
        return SpiffeId.parse(name)
    except ValueError:
        return None


# A waypoint of one service account offers only that account's pods as endpoints of what it serves.


def _others(world: World, service: Service) -> frozenset[WorkloadUid]:
    return _not_of(world.mesh.endpoints(service.key, healthy=False), world.own.namespace, world.gateway.service_account)


@lru_cache(maxsize=256)  # by the set of endpoints itself: a change makes another one
def _not_of(endpoints: Endpoints, namespace: str, account: str) -> frozenset[WorkloadUid]:
    return frozenset(
        each.uid for each in endpoints.members if (each.namespace, each.service_account) != (namespace, account)
    )


__all__ = ["Hop", "hop_to_service", "hop_to_workload", "is_ours"]
