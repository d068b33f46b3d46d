"""What the parts of the mesh know, as the walk asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from mesh.model.state import MeshState
from mesh.model.workload import Workload
from waypoint.plan.world import World


@dataclass(frozen=True, slots=True)
class NodeView:
    """The ztunnel of a node: the mesh as it knows it, and the pods that it serves ("namespace/name" → state)."""

    name: str
    mesh: MeshState
    pods: Mapping[str, str]

    def captures(self, workload: Workload) -> bool:
        return self.pods.get(f"{workload.namespace}/{workload.name}") == UP


UP = "Up"  # ztunnel's word (config_dump: workloadState)


class Views(Protocol):
    """Live. Each raises NoAnswer when the part cannot be asked."""

    def node(self, name: str) -> NodeView: ...

    def waypoint(self, pod: Workload) -> World: ...

    def why_enrolled(self, namespace: str, name: str) -> str:
        """What decides whether a pod is in the mesh: a label, or why it cannot be."""

    def why_bound(self, kind: str, namespace: str, name: str) -> str:
        """What binds a Service or a Pod to its waypoint, in words; "" if it is not known."""
