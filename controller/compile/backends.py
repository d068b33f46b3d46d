"""From a backendRef to a service's port, or to the reason why its share of the traffic fails. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controller.compile.flaws import Flaws
from controller.compile.options import MeshOptions
from controller.compile.services import is_in_mesh, service_key, tcp_ports
from controller.store.gateway_shapes import ObjectReference
from controller.store.interface import Key
from controller.store.shapes import Service, ServicePort
from mesh.model.routing import AppProtocol, Backend

# What a name stands for as appProtocol and as the prefix of a port's name (Istio: pkg/config/protocol).
_PROTOCOLS = {
    "http": AppProtocol.HTTP,
    "http2": AppProtocol.HTTP2,
    "grpc": AppProtocol.GRPC,
    "https": AppProtocol.TLS,
    "tls": AppProtocol.TLS,
    "tcp": AppProtocol.TCP,
    "mongo": AppProtocol.TCP,
    "mysql": AppProtocol.TCP,
    "redis": AppProtocol.TCP,
    "kubernetes.io/h2c": AppProtocol.HTTP2,
    "kubernetes.io/ws": AppProtocol.HTTP,
    "kubernetes.io/wss": AppProtocol.TLS,
}


@dataclass(frozen=True, slots=True)
class References:
    """How a route of one kind and namespace looks at the rest of the mesh."""

    kind: str
    namespace: str
    options: MeshOptions
    service: Callable[[Key], Service | None]
    permitted: Callable[[Key], bool]


def protocol_of(port: ServicePort) -> AppProtocol:
    if port.app_protocol:
        return _PROTOCOLS.get(port.app_protocol.lower(), AppProtocol.AUTO)
    return _PROTOCOLS.get(port.name.partition("-")[0], AppProtocol.AUTO)


def target_of(reference: ObjectReference, namespace: str) -> Key | None:
    """The Service that is meant; None for anything else."""
    if (reference.group, reference.kind) not in (("", "Service"), ("core", "Service")):
        return None
    return Key("Service", reference.namespace or namespace, reference.name)


def resolve(reference: ObjectReference, weight: int, references: References, flaws: Flaws) -> Backend:
    """Without filters. What is wrong is in `flaws` and in the backend's `error`."""
    target = target_of(reference, references.namespace)
    if target is None:
        what = f"{reference.group}/{reference.kind}" if reference.group else reference.kind
        return _failed(weight, flaws, "InvalidKind", f"a backend of kind {what} is not supported, only Services are")
    if not references.permitted(target):
        why = f"no ReferenceGrant in {target.namespace} lets {references.kind}s of {references.namespace} use {target}"
        return _failed(weight, flaws, "RefNotPermitted", why)
    service = references.service(target)
    if service is None or not is_in_mesh(service):
        why = f"there is no {target}" if service is None else f"{target} is an ExternalName, no service of the mesh"
        return _failed(weight, flaws, "BackendNotFound", why)
    port = next((each for each in tcp_ports(service) if each.port == reference.port), None)
    if port is None:
        why = f"{target} has no port {reference.port}" if reference.port else f"the port of {target} is missing"
        return _failed(weight, flaws, "BackendNotFound", why)
    key = service_key(service, references.options)
    return Backend(service=key, port=port.port, weight=weight, protocol=protocol_of(port))


def _failed(weight: int, flaws: Flaws, reason: str, message: str) -> Backend:
    return Backend(weight=weight, error=flaws.reference(reason, message))
