"""What a connection is called in metrics and in the access log: Istio's labels and fields. Pure.

The workers report addresses and identities; names come from the mesh as it is known now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.model.identity import SpiffeId
from mesh.model.state import MeshState
from mesh.model.workload import Service, Workload
from ztunnel.feed import Connection

UNKNOWN = "unknown"
OUTBOUND = "outbound"
HBONE = "HBONE"
REMEMBERED = 4096  # pairs of ends: those that talk to each other are few

_SIDE = ("workload", "canonical_service", "canonical_revision", "workload_namespace", "principal", "app", "version")
_SIDE_MORE = ("cluster", "region", "zone")
LABELS = (
    "reporter",
    *(f"source_{name}" for name in (*_SIDE, *_SIDE_MORE)),
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    *(f"destination_{name}" for name in (*_SIDE, *_SIDE_MORE)),
    "request_protocol",
    "connection_security_policy",
    "response_flags",
)


@dataclass(frozen=True, slots=True)
class Ends:
    """Both ends of a connection, as far as they are known."""

    source: Workload | None
    destination: Workload | None
    service: Service | None


def ends(connection: Connection, state: MeshState) -> Ends:
    local = state.workload(connection.workload)
    peer = state.workload(connection.peer_workload) if connection.peer_workload else None
    source, destination = (local, peer) if connection.direction == OUTBOUND else (peer, local)
    namespace = local.namespace if local else ""
    name = connection.destination_service
    return Ends(source, destination, state.service_named(name, namespace) if name else None)


def labels(connection: Connection, known: Ends, flags: str = "-") -> tuple[str, ...]:
    """Values for LABELS, in that order. As in Istio, only the count of failures has flags: what opened must close."""
    service = known.service
    return (
        "source" if connection.direction == OUTBOUND else "destination",
        *_side(known.source, connection.source_identity),
        connection.destination_service or UNKNOWN,
        service.namespace if service else UNKNOWN,
        service.name if service else UNKNOWN,
        *_side(known.destination, connection.destination_identity),
        "tcp",
        "mutual_tls" if connection.protocol == HBONE else UNKNOWN,
        flags,
    )


class Labels:
    """`labels`, remembered: connections of the same ends have the same, until the mesh tells an end anew."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[Ends, tuple[str, ...]]] = {}

    def of(self, connection: Connection, known: Ends, flags: str = "-") -> tuple[str, ...]:
        key = (
            connection.direction,
            connection.protocol,
            connection.workload,
            connection.peer_workload,
            connection.source_identity,
            connection.destination_identity,
            connection.destination_service,
            flags,
        )
        found = self._known.get(key)
        if found is not None and _same(found[0], known):
            return found[1]
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        values = labels(connection, known, flags)
        self._known[key] = known, values
        return values


def _same(one: Ends, other: Ends) -> bool:
    """By identity: what the mesh tells anew is a new object."""
    return one.source is other.source and one.destination is other.destination and one.service is other.service


def _side(workload: Workload | None, identity: SpiffeId | None) -> tuple[str, ...]:
    """Values for _SIDE and _SIDE_MORE, in that order."""
    principal = str(identity) if identity else UNKNOWN
    if workload is None:
        return (UNKNOWN,) * 4 + (principal,) + (UNKNOWN,) * 5
    values = (
        workload.workload_name or workload.name,
        workload.canonical_name,
        workload.canonical_revision,
        workload.namespace,
        principal,
        workload.canonical_name,
        workload.canonical_revision,
        workload.cluster_id,
        workload.locality.region,
        workload.locality.zone,
    )
    return tuple(value or UNKNOWN for value in values)


def log_fields(connection: Connection, known: Ends) -> Mapping[str, object]:
    """Istio's access log; the log leaves out what is empty."""
    tunnelled = connection.direction == OUTBOUND and connection.protocol == HBONE
    return {
        "src.addr": str(connection.source),
        **_log_side("src", known.source, connection.source_identity),
        "dst.addr": str(connection.actual or connection.destination),
        "dst.hbone_addr": str(connection.destination) if tunnelled else "",
        "dst.service": connection.destination_service,
        **_log_side("dst", known.destination, connection.destination_identity),
        "direction": connection.direction,
        **(_log_transfer(connection) if connection.opened else {}),
        "response_flags": connection.flags if connection.flags != "-" else "",
        "error": connection.error,
    }


def _log_transfer(connection: Connection) -> dict[str, object]:
    """Only of what was opened: Istio's line for an early denial has neither (metrics.rs: log_early_deny)."""
    ended = connection.started if connection.ended is None else connection.ended
    return {
        "bytes_sent": connection.received,  # Istio's view is the server's: sent is what went back to the client
        "bytes_recv": connection.sent,
        "duration": f"{max(0.0, ended - connection.started) * 1000:.0f}ms",
    }


def _log_side(prefix: str, workload: Workload | None, identity: SpiffeId | None) -> dict[str, object]:
    return {
        f"{prefix}.workload": workload.name if workload else "",
        f"{prefix}.namespace": workload.namespace if workload else "",
        f"{prefix}.identity": str(identity) if identity else "",
        f"{prefix}.cluster": workload.cluster_id if workload else "",
    }
