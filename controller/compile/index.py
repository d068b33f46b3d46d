"""The objects that matter to the mesh, who refers to whom, and which have to be compiled again after an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from controller.compile.gateways import GATEWAY_NAME
from controller.compile.links import Links
from controller.compile.problem import Problem
from controller.compile.security import SecurityPolicies
from controller.compile.services import SERVICE_NAME_LABEL, virtual_addresses
from controller.compile.waypoint_index import WaypointIndex
from controller.compile.workloads import claimed_addresses, is_terminal
from controller.store import gateway_shapes, kinds
from controller.store.interface import Change, Event, Key, Object
from controller.store.policy_shapes import SecurityPolicy
from controller.store.shapes import Condition, EndpointSlice, Metadata, Namespace, Node, Pod, Service, Shape
from mesh.model.address import Ip

WATCHED = (
    kinds.NAMESPACE,
    kinds.NODE,
    kinds.SERVICE,
    kinds.ENDPOINT_SLICE,
    kinds.POD,
    *kinds.SECURITY_KINDS,
    *kinds.GATEWAY_KINDS,
)

_SHAPES: dict[str, type[Shape]] = {
    "Namespace": Namespace,
    "Node": Node,
    "Service": Service,
    "EndpointSlice": EndpointSlice,
    "Pod": Pod,
    "AuthorizationPolicy": SecurityPolicy,
    "PeerAuthentication": SecurityPolicy,
    **gateway_shapes.SHAPES,
}

_NO_METADATA = Metadata()


class ObjectIndex:
    """Takes events; says what is where, and which objects an event has made stale."""

    def __init__(self, root_namespaces: tuple[str, ...]) -> None:
        self.namespaces: dict[Key, Namespace] = {}
        self.nodes: dict[Key, Node] = {}
        self.services: dict[Key, Service] = {}
        self.slices: dict[Key, EndpointSlice] = {}
        self.pods: dict[Key, Pod] = {}
        self.policies: dict[Key, SecurityPolicy] = {}
        self.authentications: dict[Key, SecurityPolicy] = {}
        self.security = SecurityPolicies(root_namespaces)
        self.waypoints = WaypointIndex(root_namespaces)
        self.malformed: dict[Key, Problem] = {}
        self._by_kind: dict[str, dict[Key, Any]] = {
            "Namespace": self.namespaces,
            "Node": self.nodes,
            "Service": self.services,
            "EndpointSlice": self.slices,
            "Pod": self.pods,
            "AuthorizationPolicy": self.policies,
            "PeerAuthentication": self.authentications,
            "GatewayClass": self.waypoints.classes,
            "Gateway": self.waypoints.gateways,
            "ReferenceGrant": self.waypoints.grants,
            **{kind.kind: self.waypoints.routes for kind in kinds.ROUTES},
        }
        self.pods_by_address: Links[Key, Ip] = Links()
        self.services_by_address: Links[Key, Ip] = Links()
        self.slices_by_service: Links[Key, Key] = Links()
        self.slices_by_pod: Links[Key, Key] = Links()
        self.users_of_node: Links[Key, Key] = Links()
        self.services_of_namespace: Links[Key, Key] = Links()
        self.pods_by_account: Links[Key, tuple[str, str, str]] = Links()
        self._stale: set[Key] = set()

    def take(self, event: Event) -> None:
        """Cost: the objects that the event concerns."""
        if event.key is None or event.key.kind not in self._by_kind:
            return
        key = event.key
        now = self._read(key, event.object) if event.change is Change.APPLIED else None
        if event.change is Change.DELETED:
            self.malformed.pop(key, None)
        self._stale.add(key)
        if now is None and key in self.malformed:
            return  # what was there before still is
        objects = self._by_kind[key.kind]
        before = objects.pop(key, None)
        if now is not None:
            objects[key] = now
        if before != now:
            self._stale.update(self._concerned(key, before, now))

    def take_stale(self) -> set[Key]:
        """The objects to compile again, once."""
        stale, self._stale = self._stale, set()
        return stale.union(self.waypoints.follow(stale))

    def runs_on_node(self, node: str, namespace: str, service_account: str) -> bool:
        """Whether a pod of this service account is on this node now and has not ended, in the mesh or not."""
        return bool(node and self.pods_by_account.sources((node, namespace, service_account)))

    def waypoint_of_pod(self, namespace: str, name: str, uid: str, service_account: str) -> str | None:
        """The waypoint ("namespace/name") of this very pod, when it runs as that waypoint's account."""
        pod = self.pods.get(Key("Pod", namespace, name))
        if pod is None or is_terminal(pod) or pod.metadata.uid != uid:
            return None
        gateway = pod.metadata.labels.get(GATEWAY_NAME, "")
        waypoint = self.waypoints.waypoint(Key("Gateway", namespace, gateway))
        if waypoint is None or not service_account == pod.spec.service_account_name == waypoint.runs_as:
            return None
        return waypoint.identifier

    def namespace_metadata(self, name: str) -> Metadata:
        """Empty for a namespace that is not there."""
        namespace = self.namespaces.get(Key("Namespace", "", name))
        return namespace.metadata if namespace is not None else _NO_METADATA

    def pods_behind(self, piece: Key) -> frozenset[Key]:
        """Of an EndpointSlice: those of its pods that are there."""
        return pods_of(self.slices[piece]) & self.pods.keys()

    def conditions(self, key: Key) -> Sequence[Condition] | None:
        """What the status of an object says; None for one that gets none of us."""
        pod_or_service = self.pods.get(key) or self.services.get(key)
        if pod_or_service is not None:
            return pod_or_service.status.conditions
        policy = self.policies.get(key) or self.authentications.get(key)
        if policy is None or (key in self.policies and not self.security.policy(key).for_ztunnel):
            return None
        return policy.conditions

    def status(self, key: Key) -> tuple[Any, int] | None:
        """The status of an object as it stands, and its generation (0: it has none); None when it is not there."""
        service = self.services.get(key)
        if service is not None:
            return msgspec.to_builtins(service.status), 0
        waypoints = self.waypoints
        places = (self.policies, waypoints.gateways, waypoints.classes, waypoints.routes)
        found: Any = next((place[key] for place in places if key in place), None)
        return (found.status, found.metadata.generation) if found is not None else None

    def _read(self, key: Key, obj: Object | None) -> Shape | None:
        try:
            read = msgspec.convert(obj, _SHAPES[key.kind])
        except msgspec.ValidationError as error:
            self.malformed[key] = Problem(key, "the object", f"cannot be read and is as it was before: {error}")
            return None
        self.malformed.pop(key, None)
        return read

    def _concerned(self, key: Key, before: Any, now: Any) -> Iterable[Key]:
        """Takes in the references of an object; returns who looks at it, or looked at it before."""
        match key.kind:
            case "Pod":
                return self._pod(key, before, now)
            case "Service":
                return self._service(key, now)
            case "EndpointSlice":
                return self._slice(key, now)
            case "Node":
                return self.users_of_node.sources(key)
            case "AuthorizationPolicy":
                return {*self.security.policy_changed(key, now), *self.waypoints.policy_changed(key, now)}
            case "PeerAuthentication":
                return self.security.authentication_changed(key, now)
            case "Namespace":
                members = self.waypoints.namespace_changed(key, before, now)
                return self.services_of_namespace.sources(key).union(members)
        return self.waypoints.changed(key, before, now)

    def _pod(self, key: Key, before: Pod | None, now: Pod | None) -> Iterable[Key]:
        claims = self.pods_by_address.replace(key, claimed_addresses(now) if now else ())
        concerned = {other for ip in claims for other in self.pods_by_address.sources(ip)}
        self.security.pod_changed(key, now)
        concerned |= self.waypoints.pod_changed(key, before, now)
        self.users_of_node.replace(key, [Key("Node", "", now.spec.node_name)] if now and now.spec.node_name else [])
        self.pods_by_account.replace(key, [_account(now)] if now and not is_terminal(now) else [])
        if before is None or now is None or before.metadata.uid != now.metadata.uid:
            concerned |= self.slices_by_pod.sources(key)
        if self.waypoints.may_bind_services(before) or self.waypoints.may_bind_services(now):
            pieces = [self.slices[piece] for piece in self.slices_by_pod.sources(key)]
            concerned |= {service for piece in pieces for service in service_of(piece)}
        return concerned

    def _service(self, key: Key, now: Service | None) -> Iterable[Key]:
        claims = self.services_by_address.replace(key, virtual_addresses(now) if now else ())
        concerned = {other for ip in claims for other in self.services_by_address.sources(ip)}
        concerned |= self.waypoints.service_changed(key, now)
        self.services_of_namespace.replace(key, [Key("Namespace", "", key.namespace)] if now else [])
        for piece in self.slices_by_service.sources(key):
            concerned |= {piece, *pods_of(self.slices[piece])}
        return concerned

    def _slice(self, key: Key, now: EndpointSlice | None) -> Iterable[Key]:
        nodes = {endpoint.node_name for endpoint in now.endpoints} - {""} if now else set()
        self.users_of_node.replace(key, [Key("Node", "", node) for node in nodes])
        services = self.slices_by_service.replace(key, service_of(now) if now else ())
        return services | self.slices_by_pod.replace(key, pods_of(now) if now else ())


def _account(pod: Pod) -> tuple[str, str, str]:
    return pod.spec.node_name, pod.metadata.namespace, pod.spec.service_account_name


def service_of(piece: EndpointSlice) -> tuple[Key, ...]:
    """The service whose endpoints these are: one, or none."""
    name = piece.metadata.labels.get(SERVICE_NAME_LABEL)
    return (Key("Service", piece.metadata.namespace, name),) if name else ()


def pods_of(piece: EndpointSlice) -> frozenset[Key]:
    references = (endpoint.target_ref for endpoint in piece.endpoints)
    return frozenset(
        Key("Pod", piece.metadata.namespace, reference.name)
        for reference in references
        if reference is not None and reference.kind == "Pod"
    )


def winner(claimants: Iterable[Key], objects: Mapping[Key, Any]) -> Key:
    """Who keeps what several claim: the oldest, so that nobody can take over what another one has."""

    def age(key: Key) -> tuple[bool, str, Key]:
        created = objects[key].metadata.creation_timestamp  # RFC 3339 in UTC: sorts as text
        return not created, created, key

    return min(claimants, key=age)
