"""Waypoints at the destination: who may come to a pod round its waypoint, and whom that waypoint speaks for.

A pod's waypoints are its own and those of the services that it is an endpoint of. A peer is one of them when TLS has
proved the identity of that waypoint's pods; nothing else makes it one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.model.identity import SpiffeId
from mesh.model.state import MeshState
from mesh.model.workload import GatewayAddress, PortMapping, Service, WaypointBinding, WaypointFailure, Workload


@dataclass(frozen=True, slots=True)
class Bound:
    """One waypoint of a pod. `required`: what it should have seen is refused when it comes another way."""

    waypoint: GatewayAddress
    of: str  # whose it is, in words
    required: bool


def is_waypoint(mesh: MeshState, own: Workload, peer: SpiffeId) -> bool:
    """Whether `peer` is one of the pod's waypoints: what it says of its client counts."""
    return any(peer in identities(mesh, own, bound.waypoint) for bound in _all(mesh, own))


def round_waypoint(mesh: MeshState, own: Workload, port: int, peer: SpiffeId | None) -> str:
    """Why a connection to `port` from `peer` (None: in plain text), who is none of the pod's waypoints, must not come
    in; "" if it may. A tunnel does not tell whether its client dialled the pod or a service, so it is let in wherever
    one of both leads past waypoints."""
    for bound in _missed(mesh, own, port, peer):
        if bound.required:
            ready = identities(mesh, own, bound.waypoint)
            waypoint = name(bound.waypoint) + ("" if ready else " (which has no pods now)")
            comes = "in plain text" if peer is None else f"by a tunnel of {peer}"
            return f"{bound.of} is reached only through its waypoint {waypoint}, not {comes}"
    return ""


def _missed(mesh: MeshState, own: Workload, port: int, peer: SpiffeId | None) -> Iterator[Bound]:
    """The waypoints that should have seen the connection."""
    services = tuple(_reaching(mesh, own, port))
    if own.waypoint is not None and own.waypoint_binding is not WaypointBinding.NONE:
        by_service = peer is not None and any(not _of_service(service) for service in services)
        if own.waypoint_binding is WaypointBinding.ALL or not by_service:
            yield _own(own, own.waypoint)
    if peer is None:
        for service in services:
            yield from _of_service(service)


def _all(mesh: MeshState, own: Workload) -> Iterator[Bound]:
    if own.waypoint is not None and own.waypoint_binding is not WaypointBinding.NONE:
        yield _own(own, own.waypoint)
    for key in own.services:
        service = mesh.service(key)
        if service is not None:
            yield from _of_service(service)


def _own(own: Workload, waypoint: GatewayAddress) -> Bound:
    return Bound(waypoint, f"workload {own.uid}", own.waypoint_failure is not WaypointFailure.OPEN)


def _of_service(service: Service) -> tuple[Bound, ...]:
    """None where the control plane does not say what holds round it: Istio's."""
    if service.waypoint_failure is WaypointFailure.UNSPECIFIED:
        return ()
    waypoints = [each.destination for each in service.weighted_waypoints]
    waypoints += [service.waypoint] if service.waypoint is not None else []
    required = service.waypoint_failure is WaypointFailure.CLOSED
    return tuple(Bound(waypoint, f"service {service.key}", required) for waypoint in waypoints)


def _reaching(mesh: MeshState, own: Workload, port: int) -> Iterator[Service]:
    """The services that lead to this port of the pod."""
    for key, mappings in own.services.items():
        service = mesh.service(key)
        if service is not None and port in _targets(service, mappings):
            yield service


def _targets(service: Service, own: tuple[PortMapping, ...]) -> set[int]:
    """The endpoint's own mapping comes before the service's."""
    mapped = {each.service_port: each.target_port for each in (*service.ports, *own)}
    return set(mapped.values())


def identities(mesh: MeshState, own: Workload, waypoint: GatewayAddress) -> frozenset[SpiffeId]:
    """Of the waypoint's pods, ready or not; none while it is not known."""
    found = mesh.gateway(waypoint, own.network, own.namespace)
    if isinstance(found, Service):
        return frozenset(pod.identity for pod in mesh.endpoints(found.key, healthy=False).members)
    return frozenset({found.identity} if found is not None else ())


def name(waypoint: GatewayAddress) -> str:
    destination = waypoint.destination
    return destination if isinstance(destination, str) else f"{destination.network}/{destination.ip}"
