"""The server of one aggregated delta xDS stream: what the client has, and what to send it next. No IO.

A client gets only what differs from what it has. Of each type one response is under way at a time: the next waits for
its ACK or NACK, and meanwhile changes gather as names, so a slow client costs a set of names and no queue of messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE, MAX_MESSAGE_BYTES, ROUTING_TYPE
from mesh.xds.resources import Collection, node_group

# When both have changed, policies go first: a pod should not be reachable before its policies are in force. Removals of
# policies go last: a workload that still names a policy which is gone lets nobody in. Routes come after the services
# that they lead to.
PUSH_ORDER = (AUTHORIZATION_TYPE, ADDRESS_TYPE, AUTHORIZATION_TYPE, ROUTING_TYPE)
MAX_NAMES = 100_000  # that one client may ask for by name; who needs more wants all
WILDCARD = "*"


class SessionRefused(Exception):
    """The client asks for more than it may; the stream is to be ended with this reason."""


@dataclass
class Subscription:
    """One type on one stream."""

    wildcard: bool
    sent: dict[str, str]  # what the client has: version by name
    group: str = ""  # the one group that this client gets, whatever it asks for
    names: set[str] = field(default_factory=set)  # asked for by name or alias
    unanswered: set[str] = field(default_factory=set)  # of those, the ones it waits for
    examine: set[str] = field(default_factory=set)  # names that may differ from what the client has
    examine_all: bool = True
    answered: bool = False  # the first response goes out even when empty: clients wait for it
    outstanding: str = ""  # nonce of the response under way
    outstanding_version: str = ""
    acknowledged: str = ""  # the collection version that the client has confirmed
    rejection: str = ""  # why it refused (part of) the last response


class ServerSession:
    """Call `requested` for each request and `changed` for each change; after either, send `next_response()` until it
    is None."""

    def __init__(
        self,
        collections: Mapping[str, Collection],
        node: str = "",
        max_bytes: int = MAX_MESSAGE_BYTES // 2,
        groups: Mapping[str, str] | None = None,
    ):
        """`node` is the client's; an on-demand client gets that node's workloads unasked. Of a type in `groups` it gets
        that group and nothing else."""
        self._collections = collections
        self._node = node
        self._groups = groups or {}
        self._max_bytes = max_bytes
        self._nonce = 0
        self.subscriptions: dict[str, Subscription] = {}

    def requested(self, request: DeltaDiscoveryRequest) -> None:
        """A request, ACK or NACK. Types that are not published are ignored. Raises SessionRefused."""
        if request.type_url not in self._collections:
            return
        subscription = self.subscriptions.get(request.type_url)
        if subscription is None:
            subscription = _first(request, self._groups.get(request.type_url, ""))
            self.subscriptions[request.type_url] = subscription
        else:
            _acknowledge(subscription, request)
        if subscription.group:
            subscription.examine_all = subscription.examine_all or bool(request.resource_names_subscribe)
            return
        self._subscribe(subscription, request.resource_names_subscribe, self._collections[request.type_url])
        self._unsubscribe(subscription, request.resource_names_unsubscribe, self._collections[request.type_url])

    def changed(self, type_url: str, names: Iterable[str]) -> None:
        """These resources are different, new or gone."""
        subscription = self.subscriptions.get(type_url)
        if subscription is None:
            return
        if subscription.wildcard:
            subscription.examine.update(names)
        else:
            subscription.examine_all = True  # a few names: cheaper to look at all than to know whom a change concerns

    def next_response(self, version: str = "") -> DeltaDiscoveryResponse | None:
        """What to send now, if anything. `version` names the state of the collections, for people."""
        for turn, type_url in enumerate(PUSH_ORDER):
            subscription = self.subscriptions.get(type_url)
            if subscription is None or subscription.outstanding:
                continue
            keep = type_url == AUTHORIZATION_TYPE and self._named_by_addresses(last=turn > 0)
            response = self._difference(subscription, self._collections[type_url], keep)
            if response.resources or response.removed_resources or not subscription.answered:
                return self._sent(subscription, response, type_url, version)
            if not subscription.rejection and not subscription.examine:
                subscription.acknowledged = version  # nothing in it concerns this client
        return None

    def _named_by_addresses(self, last: bool) -> bool:
        """Whether workloads as the client has them may name policies that are gone. `last`: all addresses are sent."""
        addresses = self.subscriptions.get(ADDRESS_TYPE)
        if addresses is None:
            return False
        return bool(addresses.outstanding) or (not last and (addresses.examine_all or bool(addresses.examine)))

    def _sent(
        self, subscription: Subscription, response: DeltaDiscoveryResponse, type_url: str, version: str
    ) -> DeltaDiscoveryResponse:
        self._nonce += 1
        response.type_url = type_url
        response.nonce = str(self._nonce)
        response.system_version_info = version
        subscription.answered = True
        subscription.outstanding, subscription.outstanding_version = response.nonce, version
        return response

    def _difference(
        self, subscription: Subscription, collection: Collection, keep: bool = False
    ) -> DeltaDiscoveryResponse:
        """`keep`: what is gone is not said yet, but later."""
        response = DeltaDiscoveryResponse()
        names, wanted = self._to_examine(subscription, collection)
        kept = set()
        room = self._max_bytes
        while names and room > 0:
            name = names.pop()
            resource = collection.get(name) if wanted is None or name in wanted else None
            if resource is None:
                if keep and name in subscription.sent:
                    kept.add(name)
                elif subscription.sent.pop(name, None) is not None:
                    response.removed_resources.append(name)
            elif subscription.sent.get(name) != resource.version:
                subscription.sent[name] = resource.version
                response.resources.append(resource.message)
                room -= resource.size
        subscription.examine = names | kept
        unknown = {key for key in subscription.unanswered if not collection.resolve(key)}
        response.removed_resources.extend(unknown.difference(response.removed_resources))
        subscription.unanswered.clear()
        return response

    def _to_examine(self, subscription: Subscription, collection: Collection) -> tuple[set[str], set[str] | None]:
        """The names to look at, and those that the client wants (None: all)."""
        if not subscription.examine_all and not subscription.examine:
            return set(), None
        wanted = None if subscription.wildcard else self._wanted(subscription, collection)
        names = subscription.examine
        if subscription.examine_all:
            names = (set(collection.names()) if wanted is None else set(wanted)) | subscription.sent.keys()
            subscription.examine_all = False
        return names, wanted

    def _wanted(self, subscription: Subscription, collection: Collection) -> set[str]:
        if subscription.group:
            return collection.members(subscription.group)
        local = collection.members(node_group(self._node)) if self._node else set()
        return local.union(*(collection.resolve(key) for key in subscription.names))

    def _subscribe(self, subscription: Subscription, keys: Iterable[str], collection: Collection) -> None:
        for key in keys:
            subscription.examine_all = True
            if key == WILDCARD:
                subscription.wildcard = True
                continue
            subscription.names.add(key)
            subscription.unanswered.add(key)
            for name in collection.resolve(key):  # asked for again: it is sent again
                if subscription.answered:
                    subscription.sent.pop(name, None)
        if len(subscription.names) > MAX_NAMES:
            raise SessionRefused(f"more than {MAX_NAMES} resources asked for by name; subscribe to {WILDCARD!r}")

    def _unsubscribe(self, subscription: Subscription, keys: Iterable[str], collection: Collection) -> None:
        keys = set(keys)
        if not keys:
            return
        if WILDCARD in keys:
            subscription.wildcard = False
        subscription.names -= keys
        subscription.unanswered -= keys
        if subscription.answered and not subscription.wildcard:  # what it gave up it has forgotten by itself
            wanted = self._wanted(subscription, collection)
            subscription.sent = {name: version for name, version in subscription.sent.items() if name in wanted}
            subscription.examine &= wanted


def _first(request: DeltaDiscoveryRequest, group: str) -> Subscription:
    """Without any name the first request means everything, as before there was a "*" (xDS protocol).

    An on-demand client says what it wants from an earlier stream by what it claims to have (Istio: pkg/xds/delta).
    """
    asked = request.resource_names_subscribe
    wildcard = not asked or (WILDCARD in asked and WILDCARD not in request.resource_names_unsubscribe)
    claimed = dict(request.initial_resource_versions)
    if group:
        return Subscription(wildcard=False, sent=claimed, group=group)
    return Subscription(wildcard, sent=claimed, names=set() if wildcard else set(claimed))


def _acknowledge(subscription: Subscription, request: DeltaDiscoveryRequest) -> None:
    """An answer to anything but the response under way is stale and says nothing."""
    if not subscription.outstanding or request.response_nonce != subscription.outstanding:
        return
    subscription.outstanding = ""
    if request.HasField("error_detail"):
        subscription.rejection = request.error_detail.message or "refused without a reason"
    else:
        subscription.rejection = ""
        subscription.acknowledged = subscription.outstanding_version
