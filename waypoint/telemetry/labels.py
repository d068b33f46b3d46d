"""What requests and connections are called in metrics: Istio's labels. Pure."""

from __future__ import annotations

from mesh.model.labels import PEERS, UNKNOWN, end
from mesh.model.workload import ServiceKey
from waypoint.plan.hop import Hop
from waypoint.plan.world import World
from waypoint.routing.request import Client

CONNECTION = (*PEERS, "request_protocol", "connection_security_policy", "response_flags")
REQUEST = (*CONNECTION, "response_code", "grpc_response_status")


def peers(world: World, client: Client, hop: Hop | None, service: ServiceKey | None) -> tuple[str, ...]:
    """Values for PEERS, in that order."""
    source = world.mesh.workload_at(world.own.network, client.address.ip)
    if source is not None and source.identity != client.identity:
        source = None  # another one has its address by now
    found = world.mesh.service(service) if service else None
    destination = hop.workload if hop else None
    return (
        "waypoint",
        *end(source, client.identity),
        found.hostname if found else UNKNOWN,
        found.namespace if found else UNKNOWN,
        found.name if found else UNKNOWN,
        *end(destination, destination.identity if hop and hop.identities and destination else None),
    )
