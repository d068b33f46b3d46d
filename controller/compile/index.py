"""The objects that matter to the mesh, who refers to whom, and which have to be compiled again after an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from controller.compile.links import Links
from controller.compile.problem import Problem
from controller.compile.services import SERVICE_NAME_LABEL, virtual_addresses
from controller.compile.workloads import claimed_addresses, is_terminal
from controller.store import kinds
from controller.store.interface import Change, Event, Key, Object
from controller.store.shapes import EndpointSlice, Namespace, Node, Pod, Service, Shape
from mesh.model.address import Ip

WATCHED = (kinds.NAMESPACE, kinds.NODE, kinds.SERVICE, kinds.ENDPOINT_SLICE, kinds.POD)

_SHAPES: dict[str, type[Shape]] = {
    "Namespace": Namespace,
    "Node": Node,
    "Service": Service,
    "EndpointSlice": EndpointSlice,
    "Pod": Pod,
}


class ObjectIndex:
    """Takes events; says what is where, and which objects an event has made stale."""

    def __init__(self) -> None:
        self.namespaces: dict[Key, Namespace] = {}
        self.nodes: dict[Key, Node] = {}
        self.services: dict[Key, Service] = {}
        self.slices: dict[Key, EndpointSlice] = {}
        self.pods: dict[Key, Pod] = {}
        self.malformed: dict[Key, Problem] = {}
        self._by_kind: dict[str, dict[Key, Any]] = {
            "Namespace": self.namespaces,
            "Node": self.nodes,
            "Service": self.services,
            "EndpointSlice": self.slices,
            "Pod": self.pods,
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
        return stale

    def runs_on_node(self, node: str, namespace: str, service_account: str) -> bool:
        """Whether a pod of this service account is on this node now and has not ended, in the mesh or not."""
        return bool(node and self.pods_by_account.sources((node, namespace, service_account)))

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
        return self.services_of_namespace.sources(key)

    def _pod(self, key: Key, before: Pod | None, now: Pod | None) -> Iterable[Key]:
        claims = self.pods_by_address.replace(key, claimed_addresses(now) if now else ())
        concerned = {other for ip in claims for other in self.pods_by_address.sources(ip)}
        self.users_of_node.replace(key, [Key("Node", "", now.spec.node_name)] if now and now.spec.node_name else [])
        self.pods_by_account.replace(key, [_account(now)] if now and not is_terminal(now) else [])
        if before is None or now is None or before.metadata.uid != now.metadata.uid:
            concerned |= self.slices_by_pod.sources(key)
        return concerned

    def _service(self, key: Key, now: Service | None) -> Iterable[Key]:
        claims = self.services_by_address.replace(key, virtual_addresses(now) if now else ())
        concerned = {other for ip in claims for other in self.services_by_address.sources(ip)}
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
