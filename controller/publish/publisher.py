"""What is published, and who is listening. Everything runs on one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from controller.compile.published import NO_ROUTING, RoutingUpdate
from mesh.model.policy import Authorization
from mesh.model.routing import waypoint_group
from mesh.model.update import MeshUpdate
from mesh.model.workload import Service, Workload
from mesh.wire.authorization import strictest
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE, ROUTING_TYPE
from mesh.xds.resources import Collection, Resource, address_resource, policy_resource, routing_resource
from mesh.xds.server import ServerSession

Value = TypeVar("Value", Workload | Service, Authorization)

log = logging.getLogger("publish")


@dataclass(frozen=True, slots=True, order=True)
class Client:
    """Who is told: the ztunnel of a node, or a pod of the waypoint "namespace/name"."""

    waypoint: str
    name: str  # of the node, or of the pod

    def __str__(self) -> str:
        return f"pod {self.name} of waypoint {self.waypoint}" if self.waypoint else f"ztunnel of node {self.name}"


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One type of resource on one stream. `acknowledged` is the last version that it has taken in."""

    acknowledged: str
    waiting: bool  # a response is under way: no ACK yet
    rejection: str  # why it refused (part of) the last response


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """A connected ztunnel or waypoint; `types` by type URL."""

    client: Client
    peer: str
    types: dict[str, TypeStatus]


class Connection:
    """One client's stream: its session, and a bell that rings when there may be something to send."""

    def __init__(self, session: ServerSession, client: Client, peer: str) -> None:
        self.session = session
        self.client = client
        self.peer = peer
        self.bell = asyncio.Event()

    def requested(self, request: DeltaDiscoveryRequest) -> None:
        """Raises SessionRefused."""
        rejections = {url: each.rejection for url, each in self.session.subscriptions.items()}
        self.session.requested(request)
        self.bell.set()
        for url, subscription in self.session.subscriptions.items():
            if subscription.rejection and subscription.rejection != rejections.get(url):
                log.error("%s refuses %s: %s", self.client, url, subscription.rejection)

    def changed(self, type_url: str, names: Iterable[str]) -> None:
        self.session.changed(type_url, names)
        self.bell.set()

    def status(self) -> ConnectionStatus:
        types = {
            url: TypeStatus(each.acknowledged, bool(each.outstanding), each.rejection)
            for url, each in self.session.subscriptions.items()
        }
        return ConnectionStatus(self.client, self.peer, types)


class Publisher:
    """Holds the mesh as resources and rings the connections that a change may concern.

    Nothing is sent before the first `update`, which has to be the whole mesh: a client takes what it does not get as
    gone.
    """

    def __init__(self) -> None:
        self._collections = {ADDRESS_TYPE: Collection(), AUTHORIZATION_TYPE: Collection(), ROUTING_TYPE: Collection()}
        self._connections: set[Connection] = set()
        self._changes = 0
        self.synced = asyncio.Event()

    @property
    def version(self) -> str:
        """Names the published state, for people; resources have versions of their own."""
        return str(self._changes)

    def update(self, update: MeshUpdate, routing: RoutingUpdate = NO_ROUTING) -> None:
        """Publish a change. What has not really changed is not sent; what cannot be encoded is logged and kept as it
        was, except that such a policy denies."""
        addresses = [*_encoded(update.workloads, address_resource), *_encoded(update.services, address_resource)]
        removed: set[str] = {*update.removed_workloads, *update.removed_services}
        removed_policies: set[str] = set(update.removed_policies)
        if update.replace:
            removed |= self._collections[ADDRESS_TYPE].names() - {
                *(workload.uid for workload in update.workloads),
                *(service.key for service in update.services),
            }
            removed_policies |= self._collections[AUTHORIZATION_TYPE].names() - {each.key for each in update.policies}
        different = {
            AUTHORIZATION_TYPE: self._collections[AUTHORIZATION_TYPE].apply(
                _encoded(update.policies, _policy), removed_policies
            ),
            ADDRESS_TYPE: self._collections[ADDRESS_TYPE].apply(addresses, removed),
            ROUTING_TYPE: self._apply_routing(routing),
        }
        if any(different.values()) or not self.synced.is_set():
            self._changes += 1
            self.synced.set()
            self._tell(different)

    def _apply_routing(self, routing: RoutingUpdate) -> set[str]:
        collection = self._collections[ROUTING_TYPE]
        resources = [routing_resource(each.value, each.waypoints) for each in routing.changed]
        removed = set(routing.removed)
        if routing.replace:
            removed |= collection.names() - {resource.name for resource in resources}
        return collection.apply(resources, removed)

    def connect(self, client: Client, peer: str) -> Connection:
        connection = Connection(self._session(client), client, peer)
        self._connections.add(connection)
        return connection

    def _session(self, client: Client) -> ServerSession:
        """ztunnels enforce policies and know no routes; a waypoint gets what concerns itself, with its policies."""
        if not client.waypoint:
            types = (ADDRESS_TYPE, AUTHORIZATION_TYPE)
            return ServerSession({each: self._collections[each] for each in types}, client.name)
        types = (ADDRESS_TYPE, ROUTING_TYPE)
        groups = {ROUTING_TYPE: waypoint_group(client.waypoint)}
        return ServerSession({each: self._collections[each] for each in types}, groups=groups)

    def disconnect(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def next_response(self, connection: Connection) -> DeltaDiscoveryResponse | None:
        """What to send to a connection now, if anything."""
        return connection.session.next_response(self.version) if self.synced.is_set() else None

    def status(self) -> tuple[ConnectionStatus, ...]:
        """Per connected client: ztunnels, ordered by node, and then waypoints."""
        return tuple(connection.status() for connection in sorted(self._connections, key=lambda each: each.client))

    def _tell(self, different: Mapping[str, set[str]]) -> None:
        for connection in self._connections:
            for type_url, names in different.items():
                connection.changed(type_url, names)


def _encoded(values: Iterable[Value], encode: Callable[[Value], Resource]) -> list[Resource]:
    resources = []
    for value in values:
        try:
            resources.append(encode(value))
        except (ValueError, TypeError) as error:  # as protobuf says it: text that is not Unicode, numbers out of range
            log.error("cannot publish %s %s/%s: %s", type(value).__name__, value.namespace, value.name, error)
    return resources


def _policy(policy: Authorization) -> Resource:
    try:
        return policy_resource(policy)
    except (ValueError, TypeError) as error:
        log.error("policy %s cannot be published and denies instead: %s", policy.key, error)
        return policy_resource(
            strictest(policy.namespace, policy.name, policy.scope, policy.action, dry_run=policy.dry_run)
        )
