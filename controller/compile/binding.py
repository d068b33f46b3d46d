"""Which waypoint an object has: its own label, then its service account, then its namespace's label. Pure.

What is named stays bound whether it is there or not: traffic that was to pass a waypoint must not go round it because
the waypoint is missing, not ready or does not admit it. Only what a waypoint does not take at all is not bound to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from controller.compile.gateways import Traffic, Waypoint
from controller.store.interface import Key
from mesh.model.workload import WaypointBinding, WaypointFailure

USE_WAYPOINT = "istio.io/use-waypoint"
USE_WAYPOINT_NAMESPACE = "istio.io/use-waypoint-namespace"
OPT_OUT = "none"
FAILURE_MODE = "ambit.io/waypoint-failure-mode"  # annotation on the bound object or its namespace
OPEN, CLOSED = "open", "closed"

Labels = Mapping[str, str]
Find = Callable[[Key], Waypoint | None]


class Source(Enum):
    """Who says so."""

    OBJECT = "its label"
    ACCOUNT = "its service account"
    NAMESPACE = "the label of its namespace"


@dataclass(frozen=True, slots=True)
class Binding:
    """`gateway` is what is named; `waypoint` is None when there is none of that name.

    `bound` is False when the waypoint does not take such traffic: then there is nothing but a condition that says so.
    """

    gateway: Key
    waypoint: Waypoint | None
    source: Source
    admitted: bool = True
    bound: bool = True

    @property
    def serves(self) -> Waypoint | None:
        """The waypoint, if it is to serve this object."""
        return self.waypoint if self.bound and self.admitted else None


def named(labels: Labels, namespace: str) -> Key | None:
    """The Gateway that labels name; None for none and for `none`."""
    name = labels.get(USE_WAYPOINT, "")
    return Key("Gateway", labels.get(USE_WAYPOINT_NAMESPACE) or namespace, name) if name not in ("", OPT_OUT) else None


def of_object(
    namespace: str, labels: Labels, namespace_labels: Labels, of_account: Waypoint | None, wanted: Traffic, find: Find
) -> Binding | None:
    """`wanted` is SERVICE for a Service and WORKLOAD for a pod; `of_account` is the waypoint of its service account."""
    if USE_WAYPOINT in labels:
        gateway = named(labels, namespace)
        return _bound(gateway, namespace, namespace_labels, wanted, find, Source.OBJECT) if gateway else None
    if of_account is not None:
        return Binding(of_account.key, of_account, Source.ACCOUNT)
    gateway = named(namespace_labels, namespace)
    if gateway is None:
        return None
    binding = _bound(gateway, namespace, namespace_labels, wanted, find, Source.NAMESPACE)
    missing_for_pods = binding.waypoint is None and wanted is Traffic.WORKLOAD  # unless it says otherwise: for services
    return binding if binding.bound and not missing_for_pods else None


def _bound(
    gateway: Key, namespace: str, namespace_labels: Labels, wanted: Traffic, find: Find, source: Source
) -> Binding:
    waypoint = find(gateway)
    if waypoint is None:
        return Binding(gateway, None, source)
    takes = waypoint.services if wanted is Traffic.SERVICE else waypoint.workloads
    return Binding(gateway, waypoint, source, waypoint.admits(namespace, namespace_labels), takes)


def of_workload(binding: Binding) -> WaypointBinding:
    """Which connections to a pod its waypoint takes."""
    both = binding.source is Source.ACCOUNT or (binding.waypoint is not None and binding.waypoint.takes is Traffic.ALL)
    return WaypointBinding.ALL if both else WaypointBinding.WORKLOAD


def failure_mode(annotations: Labels, namespace_annotations: Labels) -> WaypointFailure:
    """Anything but a plain `open` is closed."""
    mode = annotations.get(FAILURE_MODE) or namespace_annotations.get(FAILURE_MODE)
    return WaypointFailure.OPEN if mode == OPEN else WaypointFailure.CLOSED


def failure_problem(annotations: Labels) -> str:
    mode = annotations.get(FAILURE_MODE, CLOSED)
    return "" if mode in (OPEN, CLOSED) else f"{mode!r} is neither {OPEN} nor {CLOSED}; it is taken for {CLOSED}"
