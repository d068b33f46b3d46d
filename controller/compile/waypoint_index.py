"""Waypoints, routes, grants and policies with targets: who refers to whom, and whom a change concerns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from controller.compile.backends import target_of
from controller.compile.binding import USE_WAYPOINT, named
from controller.compile.gateways import GATEWAY_NAME, Waypoint, read, service_account
from controller.compile.http_policies import spec_of, targets_of
from controller.compile.links import Links
from controller.compile.parents import service_of
from controller.compile.workloads import is_ready
from controller.store.gateway_shapes import (
    AnyRoute,
    Gateway,
    GatewayClass,
    GrpcRouteSpec,
    HttpRouteSpec,
    ObjectReference,
    PlainRouteSpec,
    ReferenceGrant,
    RouteSpec,
)
from controller.store.interface import Key
from controller.store.policy_shapes import SecurityPolicy
from controller.store.shapes import Metadata, Namespace, Pod, Service


class WaypointIndex:
    """Each `..._changed` takes in an object (None: it is gone) and returns whom that concerns besides itself."""

    def __init__(self, root_namespaces: Collection[str]) -> None:
        self._root_namespaces = root_namespaces
        self.gateways: dict[Key, Gateway] = {}
        self.classes: dict[Key, GatewayClass] = {}
        self.routes: dict[Key, AnyRoute] = {}
        self.grants: dict[Key, ReferenceGrant] = {}
        self.pods_of_gateway: Links[Key, Key] = Links()
        self._members: Links[Key, str] = Links()  # pods and services of a namespace
        self._users: Links[Key, Key] = Links()  # pods, services and namespaces that name a Gateway
        self._gateways_by_class: Links[Key, Key] = Links()
        self._gateways_by_account: Links[Key, tuple[str, str]] = Links()
        self.routes_by_parent: Links[Key, Key] = Links()
        self._routes_by_backend: Links[Key, Key] = Links()
        self._routes_by_namespace: Links[Key, str] = Links()  # of their backends elsewhere
        self.policies_by_target: Links[Key, Key] = Links()

    # --- what is there

    def waypoint(self, key: Key) -> Waypoint | None:
        gateway = self.gateways.get(key)
        return read(gateway, self.classes) if gateway is not None else None

    def of_account(self, namespace: str, account: str) -> Waypoint | None:
        """The waypoint of a service account: the oldest, when there are several."""
        keys = self._gateways_by_account.sources((namespace, account))
        found = [(self.gateways[key].metadata.creation_timestamp, key) for key in keys if self.waypoint(key)]
        return self.waypoint(min(found)[1]) if found else None

    def gateways_of_class(self, class_key: Key) -> frozenset[Key]:
        return self._gateways_by_class.sources(class_key)

    # --- changes

    def changed(self, key: Key, before: Any, now: Any) -> Iterable[Key]:
        """Of the Gateway API's own kinds."""
        match key.kind:
            case "GatewayClass":
                return self.class_changed(key, before, now)
            case "Gateway":
                return self.gateway_changed(key, before, now)
            case "ReferenceGrant":
                return self.grant_changed(key)
        return self.route_changed(key, before, now)

    def pod_changed(self, key: Key, before: Pod | None, now: Pod | None) -> set[Key]:
        """The waypoints whose pod it is; and those that use them, when it becomes ready or stops to be."""
        self._use(key, now.metadata if now is not None else None)
        name = now.metadata.labels.get(GATEWAY_NAME) if now is not None else None
        gateways = self.pods_of_gateway.replace(key, [Key("Gateway", key.namespace, name)] if name else [])
        if not gateways or _ready(before) == _ready(now):
            return set(gateways)
        return {*gateways, *(user for gateway in gateways for user in self._concerned_by(gateway))}

    def may_bind_services(self, pod: Pod | None) -> bool:
        """Whether the services of a pod may be bound to a waypoint because of it."""
        if pod is None:
            return False
        account = (pod.metadata.namespace, pod.spec.service_account_name)
        return USE_WAYPOINT in pod.metadata.labels or bool(self._gateways_by_account.sources(account))

    def service_changed(self, key: Key, service: Service | None) -> set[Key]:
        """The waypoint whose address it is."""
        self._use(key, service.metadata if service is not None else None)
        gateway = Key("Gateway", key.namespace, key.name)
        return {gateway} & self.gateways.keys()

    def namespace_changed(self, key: Key, before: Namespace | None, now: Namespace | None) -> Iterable[Key]:
        gateway = named(now.metadata.labels, key.name) if now is not None else None
        self._users.replace(key, [gateway] if gateway is not None else [])
        if before is not None and now is not None and _notes(before.metadata) == _notes(now.metadata):
            return ()
        return self._members.sources(key.name)

    def gateway_changed(self, key: Key, before: Gateway | None, now: Gateway | None) -> Iterable[Key]:
        class_key = Key("GatewayClass", "", now.spec.gateway_class_name) if now is not None else None
        self._gateways_by_class.replace(key, [class_key] if class_key is not None else [])
        account = service_account(now) if now is not None else ""
        former = self._gateways_by_account.replace(key, [(key.namespace, account)] if account else [])
        if before is not None and now is not None and _same(before, now):
            return ()
        return {*self._using(key), *(self._members.sources(key.namespace) if former else ())}

    def class_changed(self, key: Key, before: GatewayClass | None, now: GatewayClass | None) -> Iterable[Key]:
        if before is not None and now is not None and _same(before, now):
            return ()
        gateways = self.gateways_of_class(key)
        members = (self._members.sources(gateway.namespace) for gateway in gateways)
        return gateways.union(*(self._using(gateway) for gateway in gateways), *members)

    def route_changed(self, key: Key, before: AnyRoute | None, now: AnyRoute | None) -> Iterable[Key]:
        parents = [service_of(each, key.namespace) for each in now.spec.parent_refs] if now is not None else []
        backends = {target_of(each, key.namespace) for each in _references(now.spec)} - {None} if now else set()
        former = self.routes_by_parent.replace(key, filter(None, parents))
        self._routes_by_backend.replace(key, filter(None, backends))
        elsewhere = {each.namespace for each in backends if each is not None} - {key.namespace}
        self._routes_by_namespace.replace(key, elsewhere)
        return () if before is not None and now is not None and _same(before, now) else former

    def grant_changed(self, key: Key) -> Iterable[Key]:
        return self._and_parents(self._routes_by_namespace.sources(key.namespace))

    def policy_changed(self, key: Key, now: SecurityPolicy | None) -> Iterable[Key]:
        """Services and Gateways say which policies they have."""
        spec = spec_of(now) if now is not None else None
        targets = targets_of(key.namespace, spec, self._root_namespaces).keys if spec is not None else ()
        concerned = self.policies_by_target.replace(key, targets)
        return concerned.union(*(self.gateways_of_class(each) for each in concerned))

    def follow(self, stale: Collection[Key]) -> Iterator[Key]:
        """Who depends on how these are compiled: routes on services, services on their routes, policies on both."""
        services = [key for key in stale if key.kind == "Service"]
        touched = self._and_parents(route for key in services for route in self._routes_by_backend.sources(key))
        yield from touched
        parents = {*services, *(key for key in touched if key.kind == "Service")}
        for key in parents:
            yield from self.routes_by_parent.sources(key)
        for key in (*parents, *(key for key in stale if key.kind in ("Gateway", "GatewayClass"))):
            yield from self.policies_by_target.sources(key)

    def _and_parents(self, routes: Iterable[Key]) -> set[Key]:
        found = set(routes)
        return found.union(*(self.routes_by_parent.targets(route) for route in found))

    def _use(self, key: Key, metadata: Metadata | None) -> None:
        gateway = named(metadata.labels, key.namespace) if metadata is not None else None
        self._users.replace(key, [gateway] if gateway is not None else [])
        self._members.replace(key, [key.namespace] if metadata is not None else [])

    def _concerned_by(self, gateway: Key) -> Iterator[Key]:
        """All that may be bound to it."""
        yield from self._using(gateway)
        if self._gateways_by_account.targets(gateway):
            yield from self._members.sources(gateway.namespace)

    def _using(self, gateway: Key) -> Iterator[Key]:
        for user in self._users.sources(gateway):
            yield user
            if user.kind == "Namespace":
                yield from self._members.sources(user.name)


def _ready(pod: Pod | None) -> bool:
    return pod is not None and is_ready(pod)


def _notes(metadata: Metadata) -> tuple[Any, Any]:
    return metadata.labels, metadata.annotations


def _same(before: Any, now: Any) -> bool:
    """But for the status."""
    same_object = before.metadata.uid == now.metadata.uid
    return same_object and before.spec == now.spec and _notes(before.metadata) == _notes(now.metadata)


def _references(spec: RouteSpec) -> Iterator[ObjectReference]:
    """All that a route sends traffic to."""
    assert isinstance(spec, HttpRouteSpec | GrpcRouteSpec | PlainRouteSpec)
    for rule in spec.rules:
        filters = [*getattr(rule, "filters", ()), *(each for backend in rule.backend_refs for each in backend.filters)]
        yield from rule.backend_refs
        yield from (each.request_mirror.backend_ref for each in filters if each.request_mirror is not None)
