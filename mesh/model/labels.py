"""What both ends of a connection are called in metrics: Istio's labels."""

from __future__ import annotations

from mesh.model.identity import SpiffeId
from mesh.model.workload import Workload

UNKNOWN = "unknown"
END = (
    "workload", "canonical_service", "canonical_revision", "workload_namespace", "principal", "app", "version",
    "cluster", "region", "zone",
)  # fmt: skip
PEERS = (
    "reporter",
    *(f"source_{name}" for name in END),
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    *(f"destination_{name}" for name in END),
)


def end(workload: Workload | None, identity: SpiffeId | None) -> tuple[str, ...]:
    """Values for END, in that order. Of a workload that is not known, its certificate still tells the namespace."""
    principal = str(identity) if identity else UNKNOWN
    if workload is None:
        namespace = identity.namespace if identity else UNKNOWN
        return (UNKNOWN, UNKNOWN, UNKNOWN, namespace, principal) + (UNKNOWN,) * 5
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
