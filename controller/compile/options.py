"""What the objects do not say about the mesh."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.model.enrolment import SYSTEM_NAMESPACE
from mesh.model.identity import DEFAULT_TRUST_DOMAIN


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """`cluster_domain` ends the host names of services, `trust_domain` begins the identities of workloads. Policies in
    one of the `root_namespaces` hold in the whole mesh; what the mesh adds by itself is in the last of them."""

    cluster_id: str = "Kubernetes"
    cluster_domain: str = "cluster.local"
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    root_namespaces: tuple[str, ...] = ("istio-system", SYSTEM_NAMESPACE)
