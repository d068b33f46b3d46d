"""What is published, and who is listening. Everything runs on one event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from mesh.model.policy import Authorization
from mesh.model.update import MeshUpdate
from mesh.model.workload import Service, Workload
from mesh.wire.authorization import strictest
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE
from mesh.xds.resources import Collection, Resource, address_resource, policy_resource
from mesh.xds.server import ServerSession

Value = TypeVar("Value", Workload | Service, Authorization)

log = logging.getLogger("publish")


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One type of resource on one stream. `acknowledged` is the last version that the ztunnel has taken in."""

    acknowledged: str
    waiting: bool  # a response is under way: no ACK yet
    rejection: str  # why the ztunnel refused (part of) the last response


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """A connected ztunnel; `types` by type URL."""

    node: str
    peer: str
    types: dict[str, TypeStatus]


class Connection:
    """One ztunnel's stream: its session, and a bell that rings when there may be something to send."""

    def __init__(self, session: ServerSession, node: str, peer: str) -> None:
        self.session = session
        self.node = node
        self.peer = peer
        self.bell = asyncio.Event()

    def requested(self, request: DeltaDiscoveryRequest) -> None:
        """Raises SessionRefused."""
        rejections = {url: each.rejection for url, each in self.session.subscriptions.items()}
        self.session.requested(request)
        self.bell.set()
        for url, subscription in self.session.subscriptions.items():
            if subscription.rejection and subscription.rejection != rejections.get(url):
                log.error("ztunnel of node %s refuses %s: %s", self.node, url, subscription.rejection)

    def changed(self, type_url: str, names: Iterable[str]) -> None:
        self.session.changed(type_url, names)
        self.bell.set()

    def status(self) -> ConnectionStatus:
        types = {
            url: TypeStatus(each.acknowledged, bool(each.outstanding), each.rejection)
            for url, each in self.session.subscriptions.items()
        }
        return ConnectionStatus(self.node, self.peer, types)


class Publisher:
    """Holds the mesh as resources and rings the connections that a change may concern.

    Nothing is sent before the first `update`, which has to be the whole mesh: a client takes what it does not get as
    gone.
    """

    def __init__(self) -> None:
        self._collections = {ADDRESS_TYPE: Collection(), AUTHORIZATION_TYPE: Collection()}
        self._connections: set[Connection] = set()
        self._changes = 0
        self.synced = asyncio.Event()

    @property
    def version(self) -> str:
        """Names the published state, for people; resources have versions of their own."""
        return str(self._changes)

    def update(self, update: MeshUpdate) -> None:
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
        }
        if any(different.values()) or not self.synced.is_set():
            self._changes += 1
            self.synced.set()
            self._tell(different)

    def connect(self, node: str, peer: str) -> Connection:
        connection = Connection(ServerSession(self._collections, node), node, peer)
        self._connections.add(connection)
        return connection

    def disconnect(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def next_response(self, connection: Connection) -> DeltaDiscoveryResponse | None:
        """What to send to a connection now, if anything."""
        return connection.session.next_response(self.version) if self.synced.is_set() else None

    def status(self) -> tuple[ConnectionStatus, ...]:
        """Per connected ztunnel, ordered by node."""
        return tuple(connection.status() for connection in sorted(self._connections, key=lambda each: each.node))

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
