"""What a server publishes: resources as they go over the wire, and collections of them by name."""

from __future__ import annotations

from collections.abc import Iterable, KeysView
from dataclasses import dataclass
from hashlib import blake2b

from mesh.model.policy import Authorization
from mesh.model.routing import waypoint_group
from mesh.model.workload import NetworkAddress, NetworkMode, Service, Workload
from mesh.wire.authorization import encode_authorization
from mesh.wire.generated import discovery_pb2 as wire
from mesh.wire.routing import Routing, encode_routing
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE, ROUTING_TYPE
from mesh.wire.workload import encode_address

_VERSION_BYTES = 8  # as Istio's xxhash64; a collision would only keep one client at an old version until the next one


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource, ready to be sent.

    The version is a hash of the content, so it survives a restart of the server. `groups` are what an on-demand client
    must also ask for to get it: a workload comes with its services and its node.
    """

    name: str
    version: str
    message: wire.Resource
    size: int
    groups: tuple[str, ...] = ()


def address_resource(value: Workload | Service) -> Resource:
    if isinstance(value, Service):
        aliases = [alias(address) for address in value.addresses]
        return _resource(ADDRESS_TYPE, value.key, encode_address(value), aliases)
    # Pods on the host network share its address: it does not name one of them.
    own = value.addresses if value.network_mode is NetworkMode.STANDARD else ()
    aliases = [alias(NetworkAddress(value.network, ip)) for ip in own]
    groups = (*value.services, *((node_group(value.node),) if value.node else ()))
    return _resource(ADDRESS_TYPE, value.uid, encode_address(value), aliases, groups)


def policy_resource(policy: Authorization) -> Resource:
    return _resource(AUTHORIZATION_TYPE, policy.key, encode_authorization(policy), [])


def routing_resource(value: Routing, waypoints: Iterable[str]) -> Resource:
    """`waypoints` are those that get it: each asks for its group."""
    groups = tuple(waypoint_group(each) for each in waypoints)
    return _resource(ROUTING_TYPE, value.key, encode_routing(value), [], groups)


def alias(address: NetworkAddress) -> str:
    """ "network/ip" or "network/ip/length", by which a client may ask for an address."""
    suffix = "" if address.length is None else f"/{address.length}"
    return f"{address.network}/{address.ip}{suffix}"


def node_group(node: str) -> str:
    return f"node//{node}"


def _resource(type_url: str, name: str, payload: bytes, aliases: list[str], groups: tuple[str, ...] = ()) -> Resource:
    version = blake2b(payload, digest_size=_VERSION_BYTES).hexdigest()
    message = wire.Resource(name=name, version=version, aliases=aliases)
    message.resource.type_url = type_url
    message.resource.value = payload
    return Resource(name, version, message, message.ByteSize(), groups)


class Collection:
    """All resources of one type. Sessions read it, its owner changes it; one thread."""

    def __init__(self) -> None:
        self._resources: dict[str, Resource] = {}
        self._by_alias: dict[str, set[str]] = {}
        self._by_group: dict[str, set[str]] = {}

    def apply(self, changed: Iterable[Resource], removed: Iterable[str]) -> set[str]:
        """The names of what is now different: an unchanged version for the same groups is no change."""
        different = set()
        for name in removed:
            if self._forget(name):
                different.add(name)
        for resource in changed:
            held = self._resources.get(resource.name)
            if held is not None and (held.version, held.groups) == (resource.version, resource.groups):
                continue
            self._forget(resource.name)
            self._hold(resource)
            different.add(resource.name)
        return different

    def get(self, name: str) -> Resource | None:
        return self._resources.get(name)

    def names(self) -> KeysView[str]:
        return self._resources.keys()

    def resolve(self, key: str) -> set[str]:
        """What a client that asks for `key` (a name or an alias) is to get: of a service, also its workloads."""
        found = {key} & self._resources.keys() | self._by_alias.get(key, set())
        return found.union(*(self.members(name) for name in found))

    def members(self, group: str) -> set[str]:
        return self._by_group.get(group, set())

    def _hold(self, resource: Resource) -> None:
        self._resources[resource.name] = resource
        for index, keys in ((self._by_alias, resource.message.aliases), (self._by_group, resource.groups)):
            for key in keys:
                index.setdefault(key, set()).add(resource.name)

    def _forget(self, name: str) -> bool:
        resource = self._resources.pop(name, None)
        if resource is None:
            return False
        for index, keys in ((self._by_alias, resource.message.aliases), (self._by_group, resource.groups)):
            for key in set(keys):
                index[key].discard(name)
                if not index[key]:
                    del index[key]
        return True
