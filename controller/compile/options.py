"""What the objects do not say about the mesh."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.model.identity import DEFAULT_TRUST_DOMAIN


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """`cluster_domain` ends the host names of services, `trust_domain` begins the identities of workloads."""

    cluster_id: str = "Kubernetes"
    cluster_domain: str = "cluster.local"
    trust_domain: str = DEFAULT_TRUST_DOMAIN
