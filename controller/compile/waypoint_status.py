"""What the status of Gateways, of what is bound to them and of policies for them should say. Pure.

Types and reasons are those of Gateway API (apis/v1 gateway_types) and of Istio (serviceregistry/ambient).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from controller.compile.binding import Binding, Source
from controller.compile.gateways import Traffic, Waypoint, listener_problem, waypoint_for
from controller.compile.options import MeshOptions
from controller.compile.services import hostname, virtual_addresses
from controller.compile.wanted import Wanted, WantedListener, WantedStatus
from controller.store.gateway_shapes import Gateway, GatewayClass, Listener
from controller.store.interface import Key
from controller.store.shapes import Service

BOUND = "istio.io/WaypointBound"
WAYPOINT_ACCEPTED = "WaypointAccepted"


def class_status() -> WantedStatus:
    return WantedStatus((Wanted("Accepted", True, "Accepted", "Gateways of this class are waypoints"),))


def gateway_status(
    gateway: Gateway,
    waypoint: Waypoint,
    classes: Mapping[Key, GatewayClass],
    service: Service | None,
    ready: bool,
    options: MeshOptions,
) -> WantedStatus:
    accepted, programmed = _accepted(gateway, waypoint, classes), _programmed(waypoint, service, ready)
    listeners = tuple(WantedListener(each.name, _listener(each, programmed)) for each in gateway.spec.listeners)
    addresses: list[tuple[str, str]] = []
    if service is not None and programmed.status:
        addresses = [("IPAddress", ip) for ip in virtual_addresses(service)]
        addresses.append(("Hostname", hostname(service, options)))
    # What was announced stays while the waypoint is away: its address does not change.
    return WantedStatus((accepted, programmed), listeners=listeners, addresses=tuple(addresses) or None)


def _accepted(gateway: Gateway, waypoint: Waypoint, classes: Mapping[Key, GatewayClass]) -> Wanted:
    if waypoint.listener is None:
        why = "; ".join(filter(None, map(listener_problem, gateway.spec.listeners))) or "it has no listener"
        return Wanted("Accepted", False, "ListenersNotValid", why)
    if waypoint.account:
        return Wanted("Accepted", True, "Accepted", f"a waypoint of service account {waypoint.account}")
    given = waypoint_for(gateway, classes)
    unknown = "" if given in set(Traffic) else f"istio.io/waypoint-for: {given!r} is not known, so "
    return Wanted("Accepted", True, "Accepted", f"{unknown}a waypoint for {waypoint.takes}")


def _programmed(waypoint: Waypoint, service: Service | None, ready: bool) -> Wanted:
    if waypoint.listener is None:
        return Wanted("Programmed", False, "Invalid", "it has no listener that a waypoint can have")
    if not ready:
        return Wanted("Programmed", False, "Pending", "no pod of the waypoint is ready")
    if service is None:
        where = f"Service {waypoint.namespace}/{waypoint.name}"
        return Wanted("Programmed", False, "AddressNotAssigned", f"there is no {where} by which it is reached")
    return Wanted("Programmed", True, "Programmed")


def _listener(listener: Listener, programmed: Wanted) -> tuple[Wanted, ...]:
    problem = listener_problem(listener)
    if problem:
        reason = (
            "UnsupportedProtocol" if "protocol" in problem else "PortUnavailable" if "port" in problem else "Invalid"
        )
        accepted = Wanted("Accepted", False, reason, problem)
        return accepted, Wanted("Programmed", False, "Invalid", problem), *_CLEAN
    return Wanted("Accepted", True, "Accepted"), programmed, *_CLEAN


_CLEAN = (Wanted("Conflicted", False, "NoConflicts"), Wanted("ResolvedRefs", True, "ResolvedRefs"))


def service_status(binding: Binding | None, split: Sequence[str], ready: bool) -> WantedStatus:
    """`ready`: the waypoint that is named has a pod that is."""
    if binding is None and split:
        why = f"each endpoint has the waypoint of its service account: {', '.join(split)}"
        return WantedStatus((Wanted(BOUND, True, WAYPOINT_ACCEPTED, why),))
    if binding is None:
        return WantedStatus(dropped=frozenset({BOUND}))
    where = f"{binding.gateway.namespace}/{binding.gateway.name}"
    return WantedStatus((_bound(binding, where, ready),))


def _bound(binding: Binding, where: str, ready: bool) -> Wanted:
    refused = "connections are refused until that changes"
    if not binding.bound:
        return Wanted(BOUND, False, "UnsupportedTrafficType", f"waypoint {where} does not take traffic of services")
    if binding.waypoint is None:
        return Wanted(BOUND, False, "WaypointIsNotReady", f"there is no waypoint {where}; {refused}")
    if not binding.admitted:
        return Wanted(BOUND, False, "AttachmentDenied", f"waypoint {where} does not admit this namespace; {refused}")
    if not ready:
        return Wanted(BOUND, False, "WaypointIsNotReady", f"no pod of waypoint {where} is ready; {refused}")
    by = "as all its endpoints are" if binding.source is Source.ACCOUNT else f"by {binding.source.value}"
    return Wanted(BOUND, True, WAYPOINT_ACCEPTED, f"bound to {where} {by}")


def policy_status(
    bound: bool | None, problems: Collection[str], missing: Collection[str], idle: Collection[str]
) -> WantedStatus:
    """`bound` is None for a policy that is no waypoint's; `missing` says which targets there are not, `idle` which have
    no waypoint."""
    if bound is None:
        return WantedStatus(dropped=frozenset({WAYPOINT_ACCEPTED}))
    words = "; ".join((*problems, *missing, *idle))
    if not bound:
        reason = "AncestorNotBound" if idle else "TargetNotFound" if missing else "Invalid"
        return WantedStatus((Wanted(WAYPOINT_ACCEPTED, False, reason, words),))
    if problems:
        return WantedStatus((Wanted(WAYPOINT_ACCEPTED, False, "PartiallyInvalid", words),))
    return WantedStatus((Wanted(WAYPOINT_ACCEPTED, True, "Accepted", words),))
