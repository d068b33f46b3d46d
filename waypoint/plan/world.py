"""All that this waypoint knows: the mesh, what it serves, by which routes and policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from msgspec import structs

from mesh.model.http_policy import HttpPolicy
from mesh.model.identity import SpiffeId
from mesh.model.routing import Gateway, PortRouting, ServiceRouting
from mesh.model.state import MeshState
from mesh.model.update import MeshUpdate
from mesh.model.workload import ServiceKey, Workload, WorkloadUid
from mesh.wire.routing import Routing
from waypoint.plan.stream_policy import for_connections
from waypoint.routing.tables import Tables, compile_tables


@dataclass(frozen=True, slots=True)
class Own:
    """This waypoint: its Gateway, its pod, and where it is."""

    namespace: str
    gateway: str
    pod: WorkloadUid
    network: str = ""
    identity: SpiffeId | None = None

    @property
    def waypoint(self) -> str:
        return f"{self.namespace}/{self.gateway}"


class World:
    """One writer; readers share its thread, so they see all of a change or nothing of it."""

    def __init__(self, own: Own) -> None:
        self.own = own
        self.mesh = MeshState()
        self.gateway = Gateway(own.waypoint)
        self.routing_changed: Callable[[], None] = lambda: None  # called after each change
        self.known = False  # whether the control plane has told of everything once
        self.tables: Tables = compile_tables(())
        self.connection_tables = self.tables  # policies as they hold for what is not HTTP
        self._routing: dict[str, Routing] = {}
        self._services: dict[ServiceKey, ServiceRouting] = {}
        self._stranger = Workload(own.pod, own.pod.rpartition("/")[2], own.namespace, network=own.network)

    def apply_mesh(self, update: MeshUpdate) -> None:
        self.mesh.apply(update)

    def apply_routing(self, changed: Mapping[str, Routing], removed: Iterable[str]) -> None:
        """By name of resource. Raises nothing: what cannot be compiled fails in its place."""
        for name in removed:
            self._routing.pop(name, None)
        self._routing.update(changed)
        self._services = {one.service: one for one in self._routing.values() if isinstance(one, ServiceRouting)}
        gateways = [one for one in self._routing.values() if isinstance(one, Gateway)]
        self.gateway = gateways[0] if gateways else Gateway(self.own.waypoint, services=False)
        self.tables = compile_tables(tuple(self._routing.values()), self.tables)
        self.connection_tables = compile_tables(map(_of_connections, self._routing.values()), self.connection_tables)
        self.routing_changed()

    @property
    def workload(self) -> Workload:
        """Our own pod; as far as it is known, else what our environment says."""
        return self.mesh.workload(self.own.pod) or self._stranger

    @property
    def identity(self) -> SpiffeId | None:
        return self.own.identity

    def service(self, key: ServiceKey) -> ServiceRouting | None:
        return self._services.get(key)

    def port(self, key: ServiceKey, number: int) -> PortRouting | None:
        found = self._services.get(key)
        return next((port for port in found.ports if port.port == number), None) if found else None

    def resources(self) -> Mapping[str, Routing]:
        return self._routing

    @property
    def policies(self) -> list[HttpPolicy]:
        return [one for one in self._routing.values() if isinstance(one, HttpPolicy)]


def _of_connections(resource: Routing) -> Routing:
    if isinstance(resource, HttpPolicy):
        return for_connections(resource)
    return structs.replace(resource, ports=()) if isinstance(resource, ServiceRouting) else resource
