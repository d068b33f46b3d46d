"""What a connection is called in metrics and in the access log: Istio's labels and fields. Pure.

The workers report addresses and identities; names come from the mesh as it is known now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mesh.model.identity import SpiffeId
from mesh.model.labels import PEERS, UNKNOWN, end
from mesh.model.state import MeshState
from mesh.model.workload import Service, Workload
from ztunnel.feed import Connection

Fields = Mapping[str, object]
Render = Callable[[Fields], str]

OUTBOUND = "outbound"
HBONE = "HBONE"
REMEMBERED = 4096  # pairs of ends: those that talk to each other are few

LABELS = (*PEERS, "request_protocol", "connection_security_policy", "response_flags")


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
        *end(known.source, connection.source_identity),
        connection.destination_service or UNKNOWN,
        service.namespace if service else UNKNOWN,
        service.name if service else UNKNOWN,
        *end(known.destination, connection.destination_identity),
        "tcp",
        "mutual_tls" if connection.protocol == HBONE else UNKNOWN,
        flags,
    )


def with_flags(values: tuple[str, ...], flags: str) -> tuple[str, ...]:
    """Values for LABELS of what failed."""
    return (*values[:-1], flags)


def without_names(values: tuple[str, ...]) -> tuple[str, ...]:
    """Values for LABELS that say neither who nor whom."""
    reporter, *names, protocol, security, flags = values
    return (reporter, *(UNKNOWN for _ in names), protocol, security, flags)


@dataclass(frozen=True, slots=True)
class Names:
    """What connections between the same ends have in common."""

    ends: Ends
    labels: tuple[str, ...]  # values for LABELS of what opens and closes
    log: str  # their part of the access log, as `render` of `NameBook` writes it


class NameBook:
    """`Names`, remembered: they cost more than all else about a short connection."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._known: dict[tuple[object, ...], Names] = {}

    def of(self, connection: Connection, state: MeshState) -> Names:
        key = (
            connection.direction,
            connection.protocol,
            connection.workload,
            connection.peer_workload,
            connection.source_identity,
            connection.destination_identity,
            connection.destination_service,
            connection.destination,
            connection.actual,
        )
        found, now = self._known.get(key), ends(connection, state)
        if found is not None and _same(found.ends, now):
            return found
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        names = self._known[key] = Names(now, labels(connection, now), self._render(log_ends(connection, now)))
        return names


def _same(one: Ends, other: Ends) -> bool:
    """By identity: what the mesh tells anew is a new object."""
    return one.source is other.source and one.destination is other.destination and one.service is other.service


# --- the access log: Istio's fields in Istio's order, which are these three parts; what is empty is left out


def log_client(connection: Connection) -> Fields:
    return {"src.addr": str(connection.source)}


def log_ends(connection: Connection, known: Ends) -> Fields:
    tunnelled = connection.direction == OUTBOUND and connection.protocol == HBONE
    return {
        **_log_side("src", known.source, connection.source_identity),
        "dst.addr": str(connection.actual or connection.destination),
        "dst.hbone_addr": str(connection.destination) if tunnelled else "",
        "dst.service": connection.destination_service,
        **_log_side("dst", known.destination, connection.destination_identity),
        "direction": connection.direction,
    }


def log_outcome(connection: Connection) -> Fields:
    """Figures only of what was opened: Istio's line for an early denial has none (metrics.rs: log_early_deny)."""
    fields: dict[str, object] = {}
    if connection.opened:
        ended = connection.started if connection.ended is None else connection.ended
        fields["bytes_sent"] = connection.received  # Istio's view is the server's: sent is what went to the client
        fields["bytes_recv"] = connection.sent
        fields["duration"] = f"{max(0.0, ended - connection.started) * 1000:.0f}ms"
    if connection.flags != "-":
        fields["response_flags"] = connection.flags
    fields["error"] = connection.error
    return fields


def _log_side(prefix: str, workload: Workload | None, identity: SpiffeId | None) -> Fields:
    return {
        f"{prefix}.workload": workload.name if workload else "",
        f"{prefix}.namespace": workload.namespace if workload else "",
        f"{prefix}.identity": str(identity) if identity else "",
        f"{prefix}.cluster": workload.cluster_id if workload else "",
    }
