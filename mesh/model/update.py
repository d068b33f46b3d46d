"""A change of the mesh as one value: what xDS delivers, what the agent hands to its workers, what is kept on disk."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.model.policy import Authorization
from mesh.model.workload import PolicyKey, Service, ServiceKey, Workload, WorkloadUid


@dataclass(frozen=True, slots=True)
class MeshUpdate:
    """Upserts and removals, applied together. With `replace`, what is not named here is gone."""

    workloads: tuple[Workload, ...] = ()
    services: tuple[Service, ...] = ()
    policies: tuple[Authorization, ...] = ()
    removed_workloads: tuple[WorkloadUid, ...] = ()
    removed_services: tuple[ServiceKey, ...] = ()
    removed_policies: tuple[PolicyKey, ...] = ()
    replace: bool = False
