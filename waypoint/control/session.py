"""What this waypoint subscribes to besides the mesh: its own gateway, services, routes and policies. No IO.

Of a resource that cannot be read the last good version stays; a policy or service that never was good is not there, and
what is not there denies, or is not served.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.model.routing import waypoint_group
from mesh.wire.errors import InvalidResource
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.routing import Routing, decode_routing
from mesh.wire.services import ROUTING_TYPE


@dataclass(frozen=True, slots=True)
class Received:
    changed: dict[str, Routing]
    removed: tuple[str, ...]
    reply: DeltaDiscoveryRequest
    rejected: tuple[InvalidResource, ...]


class RoutingSession:
    """Outlives streams, as mesh.xds.client.ClientSession does."""

    def __init__(self, node: DeltaDiscoveryRequest.Node, waypoint: str) -> None:
        self._node = node
        self._group = waypoint_group(waypoint)
        self._versions: dict[str, str] = {}
        self.ready = False

    def connect(self) -> DeltaDiscoveryRequest:
        return DeltaDiscoveryRequest(
            node=self._node,
            type_url=ROUTING_TYPE,
            resource_names_subscribe=[self._group],
            initial_resource_versions=self._versions,
        )

    def received(self, response: DeltaDiscoveryResponse) -> Received:
        changed: dict[str, Routing] = {}
        rejected: list[InvalidResource] = []
        for resource in response.resources:
            try:
                changed[resource.name] = decode_routing(resource.name, resource.resource.value)
                self._versions[resource.name] = resource.version
            except InvalidResource as error:
                rejected.append(error)
                self._versions[resource.name] = ""
        removed = tuple(name for name in response.removed_resources if name not in changed)
        for name in removed:
            self._versions.pop(name, None)
        self.ready = True
        reply = DeltaDiscoveryRequest(type_url=ROUTING_TYPE, response_nonce=response.nonce)
        if rejected:
            reply.error_detail.message = "; ".join(map(str, rejected[:20]))
        return Received(changed, removed, reply, tuple(rejected))
