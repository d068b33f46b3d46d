"""A route of any kind as a value, with all that is to be said about it; and what becomes of several on one port. Pure.

One kind of route has a port: GRPCRoute before HTTPRoute before TLSRoute before TCPRoute (GEP-1294).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from controller.compile.backends import References, protocol_of
from controller.compile.flaws import About, Flaw
from controller.compile.parents import Attachment
from controller.compile.route_rules import grpc_rules, http_rules, tcp_rules, tls_rules
from controller.compile.services import tcp_ports
from controller.compile.wanted import Wanted
from controller.store.gateway_shapes import AnyRoute, GrpcRoute, HttpRoute, TcpRoute, TlsRoute
from controller.store.interface import Key
from controller.store.shapes import Service, ServicePort
from mesh.model.routing import AppProtocol, PortRouting, Route

PRECEDENCE = ("GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute")
_OVER_HTTP = (AppProtocol.AUTO, AppProtocol.HTTP, AppProtocol.HTTP2, AppProtocol.GRPC)


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """`route` is None when nothing is left of its rules: then it is attached to nothing."""

    key: Key
    route: Route | None
    flaws: tuple[Flaw, ...] = ()
    attachments: tuple[Attachment, ...] = ()

    def ports(self, service: Key) -> frozenset[int]:
        """Of a service that it is attached to."""
        found = (each.ports for each in self.attachments if each.target == service and self.route is not None)
        return frozenset(port for ports in found for port in ports)


def compile_route(key: Key, given: AnyRoute, references: References, attached: Iterable[Attachment]) -> CompiledRoute:
    route = Route(key.namespace, key.name, _seconds(given.metadata.creation_timestamp))
    match given:
        case HttpRoute():
            http, flaws = http_rules(given.spec.rules, references)
            route = replace(route, http=http)
        case GrpcRoute():
            grpc, flaws = grpc_rules(given.spec.rules, references)
            route = replace(route, grpc=grpc)
        case TlsRoute():
            tls, flaws = tls_rules(given.spec, references)
            route = replace(route, tls=tls)
        case TcpRoute():
            tcp, flaws = tcp_rules(given.spec, references)
            route = replace(route, tcp=tcp)
        case _:
            raise TypeError(f"{key} is no route")
    empty = not (route.http or route.grpc or route.tls or route.tcp)
    return CompiledRoute(key, None if empty else route, tuple(flaws.found), tuple(attached))


def _seconds(timestamp: str) -> float:
    try:
        return datetime.fromisoformat(timestamp).timestamp() if timestamp else 0.0
    except ValueError:
        return 0.0


# --- several routes on one service


def routing_of(key: Key, service: Service, routes: Collection[CompiledRoute]) -> tuple[PortRouting, ...]:
    return tuple(_port(key, port, routes) for port in tcp_ports(service))


def _port(key: Key, port: ServicePort, routes: Collection[CompiledRoute]) -> PortRouting:
    chosen = in_force(key, port.port, routes)
    values = tuple(
        replace(each.route, clients="" if each.key.namespace == key.namespace else each.key.namespace)
        for each in chosen
        if each.route is not None
    )
    return PortRouting(port.port, _protocol(protocol_of(port), values), values)


def _protocol(declared: AppProtocol, routes: Sequence[Route]) -> AppProtocol:
    """A route that names a port says what the port speaks, whatever its name is."""
    if not routes:
        return declared
    if routes[0].tls is not None:
        return AppProtocol.TLS
    if routes[0].tcp is not None:
        return AppProtocol.TCP
    return declared if declared in _OVER_HTTP else AppProtocol.AUTO


def in_force(service: Key, port: int, routes: Iterable[CompiledRoute]) -> list[CompiledRoute]:
    """Those that decide about a port, oldest first."""
    attached = sorted((each for each in routes if port in each.ports(service)), key=_age)
    kind = next((kind for kind in PRECEDENCE if any(each.key.kind == kind for each in attached)), "")
    found = [each for each in attached if each.key.kind == kind]
    return _oldest_of_each_side(found, service) if kind == "TCPRoute" else found


def _oldest_of_each_side(routes: Iterable[CompiledRoute], service: Key) -> list[CompiledRoute]:
    """There is nothing in a TCP connection to choose by: one route for everybody, one for each namespace of clients."""
    first: dict[str, CompiledRoute] = {}
    for each in routes:
        first.setdefault("" if each.key.namespace == service.namespace else each.key.namespace, each)
    return list(first.values())


def _age(route: CompiledRoute) -> tuple[float, str, str]:
    created = route.route.created if route.route is not None else 0.0
    return created, route.key.namespace, route.key.name


# --- what is to be said


def conditions(
    compiled: CompiledRoute, attachment: Attachment, others: Collection[CompiledRoute], waypoints: Collection[str]
) -> tuple[Wanted, ...]:
    """Of one parentRef. `others` are the routes of the same Service, `waypoints` those that it passes."""
    accepted = _accepted(compiled, attachment, others)
    found = [accepted, _resolved(compiled.flaws)]
    invalid = [each for each in compiled.flaws if each.about in (About.VALUE, About.IGNORED)]
    if accepted.status and invalid:
        found.append(Wanted("PartiallyInvalid", True, "UnsupportedValue", f"Dropped Rule: {_words(invalid)}"))
    if attachment.target.kind == "Service":
        found.append(_waypoints(waypoints))
    return tuple(found)


def _accepted(compiled: CompiledRoute, attachment: Attachment, others: Collection[CompiledRoute]) -> Wanted:
    incompatible = [each for each in compiled.flaws if each.about is About.INCOMPATIBLE]
    if not attachment.ports:
        return Wanted("Accepted", False, attachment.reason, attachment.problem)
    if incompatible:
        return Wanted("Accepted", False, "IncompatibleFilters", _words(incompatible))
    if compiled.route is None:
        why = _words(compiled.flaws) or "the route has no rules"
        return Wanted("Accepted", False, "UnsupportedValue", why)
    if _serves_nothing(compiled.route):
        return Wanted("Accepted", False, "UnsupportedValue", _words(compiled.flaws))
    winners = {port: in_force(attachment.target, port, others) for port in attachment.ports}
    stronger = {found[0].key for found in winners.values() if found and found[0].key.kind != compiled.key.kind}
    if stronger and all(found and found[0].key.kind != compiled.key.kind for found in winners.values()):
        why = f"{min(stronger)} decides about all these ports: {' before '.join(PRECEDENCE)}"
        return Wanted("Accepted", False, "Conflicted", why)
    older = [port for port, found in winners.items() if compiled not in found]
    note = f"an older or more specific route decides about port {', '.join(map(str, older))}" if older else ""
    return Wanted("Accepted", True, "Accepted", note)


def _serves_nothing(route: Route) -> bool:
    """Whether each rule answers with an error only. Were some to do so, the route would be partially invalid."""
    errors = [rule.filters.error for rule in route.http or ()] + [rule.filters.error for rule in route.grpc or ()]
    return bool(errors) and all(errors)


def _resolved(flaws: Sequence[Flaw]) -> Wanted:
    wrong = [each for each in flaws if each.about is About.REFERENCE]
    if wrong:
        return Wanted("ResolvedRefs", False, wrong[0].reason, _words(wrong))
    return Wanted("ResolvedRefs", True, "ResolvedRefs")


def _waypoints(waypoints: Collection[str]) -> Wanted:
    if waypoints:
        return Wanted("ResolvedWaypoints", True, "WaypointAccepted", f"followed by {', '.join(sorted(waypoints))}")
    why = "the Service passes no waypoint: the route is accepted and has no effect until it does"
    return Wanted("ResolvedWaypoints", False, "NoWaypoint", why)


def _words(flaws: Iterable[Flaw]) -> str:
    return "; ".join(dict.fromkeys(f"rules[{each.rule}]: {each.message}" for each in flaws))
