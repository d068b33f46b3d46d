"""Which ports of which services a route is attached to (GEP-1294: a Service as parent). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from controller.compile.backends import protocol_of, target_of
from controller.compile.services import is_in_mesh, tcp_ports
from controller.compile.wanted import Reference
from controller.store.gateway_shapes import GROUP, ObjectReference, ParentReference
from controller.store.interface import Key
from controller.store.shapes import Service
from mesh.model.routing import AppProtocol

# Without a port, a route is attached to the ports that may speak its protocol; with one, to that one whatever it says.
_MAY_SPEAK = {
    "HTTPRoute": {AppProtocol.AUTO, AppProtocol.HTTP, AppProtocol.HTTP2, AppProtocol.GRPC},
    "GRPCRoute": {AppProtocol.AUTO, AppProtocol.HTTP2, AppProtocol.GRPC},
    "TLSRoute": {AppProtocol.AUTO, AppProtocol.TLS},
    "TCPRoute": set(AppProtocol),
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """`ports` are numbers of the Service's ports; without any, `reason` and `problem` say why."""

    parent: ParentReference
    target: Key
    ports: tuple[int, ...] = ()
    reason: str = ""
    problem: str = ""

    @property
    def reference(self) -> Reference:
        """As it stands in the status."""
        parent = self.parent
        pairs: list[tuple[str, str | int]] = [("group", parent.group), ("kind", parent.kind)]
        if parent.namespace:
            pairs.append(("namespace", parent.namespace))
        pairs.append(("name", parent.name))
        if parent.section_name:
            pairs.append(("sectionName", parent.section_name))
        if parent.port is not None:
            pairs.append(("port", parent.port))
        return tuple(pairs)


def service_of(parent: ParentReference, namespace: str) -> Key | None:
    """The Service that a parentRef names; None for anything else."""
    reference = ObjectReference(name=parent.name, group=parent.group, kind=parent.kind, namespace=parent.namespace)
    return target_of(reference, namespace)


def attachments(
    kind: str,
    namespace: str,
    parents: Sequence[ParentReference],
    service: Callable[[Key], Service | None],
    is_waypoint: Callable[[Key], bool],
) -> Iterator[Attachment]:
    """One for each parentRef that is ours to answer: a Service, or a Gateway that is a waypoint."""
    for parent in dict.fromkeys(parents):
        target = service_of(parent, namespace)
        if target is not None:
            yield _to_service(kind, parent, target, service(target))
        elif (parent.group, parent.kind) == (GROUP, "Gateway"):
            gateway = Key("Gateway", parent.namespace or namespace, parent.name)
            if is_waypoint(gateway):
                why = "a waypoint follows the routes of the Services that use it: name the Service as the parent"
                yield Attachment(parent, gateway, (), "NotAllowedByListeners", why)


def _to_service(kind: str, parent: ParentReference, target: Key, service: Service | None) -> Attachment:
    if service is None or not is_in_mesh(service):
        why = f"there is no {target}" if service is None else f"{target} is an ExternalName, no service of the mesh"
        return Attachment(parent, target, (), "NoMatchingParent", why)
    named = [
        port
        for port in tcp_ports(service)
        if parent.port in (None, port.port) and parent.section_name in ("", port.name)
    ]
    if not named:
        return Attachment(parent, target, (), "NoMatchingParent", f"{target} has no such port")
    explicit = parent.port is not None or bool(parent.section_name)
    fitting = tuple(port.port for port in named if explicit or protocol_of(port) in _MAY_SPEAK[kind])
    if not fitting:
        return Attachment(parent, target, (), "NoMatchingParent", f"{target} has no port that a {kind} is for")
    return Attachment(parent, target, fitting)
