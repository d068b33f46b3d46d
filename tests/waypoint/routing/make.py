"""Short ways to write routes and requests."""

from __future__ import annotations

from mesh.model.address import Ip, SocketAddress
from mesh.model.routing import (
    Backend,
    Filters,
    Gateway,
    GrpcMatch,
    GrpcRule,
    HttpMatch,
    HttpRule,
    MatchType,
    PathMatch,
    PortRouting,
    Route,
    ServiceRouting,
    ValueMatch,
)
from mesh.model.workload import PolicyKey, ServiceKey
from waypoint.routing.request import Client, Destination, Forward, Reply, Request
from waypoint.routing.tables import PortTable, Tables, compile_tables

ECHO = ServiceKey("mesh/echo.mesh.svc.cluster.local")
WAYPOINT = "mesh/waypoint"


def client(namespace: str = "mesh") -> Client:
    return Client(None, namespace, SocketAddress(Ip("10.0.0.1"), 40000))


def backend(name: str, port: int = 8080, **more: object) -> Backend:
    return Backend(ServiceKey(name), port, **more)  # type: ignore[arg-type]


def to(name: str, port: int = 8080) -> Destination:
    return Destination(ServiceKey(name), port)


def values(pairs: dict[str, str]) -> tuple[ValueMatch, ...]:
    return tuple(ValueMatch(name, value) for name, value in pairs.items())


def match(
    path: str = "/", *, method: str = "", headers: dict[str, str] | None = None, query: dict[str, str] | None = None
) -> HttpMatch:
    """The path "=/x" is exact, "~/x.*" an expression, any other a prefix."""
    kinds = {"=": MatchType.EXACT, "~": MatchType.REGEX}
    kind = kinds.get(path[:1], MatchType.PREFIX)
    where = PathMatch(kind, path if kind is MatchType.PREFIX else path[1:])
    return HttpMatch(where, values(headers or {}), values(query or {}), method)


def rule(*matches: HttpMatch, to: str = "v1", filters: Filters | None = None, **more: object) -> HttpRule:
    backends = (backend(to),) if to else ()
    return HttpRule(matches or (match(),), filters or Filters(), more.pop("backends", backends), **more)  # type: ignore[arg-type]


def grpc(service: str = "", method: str = "", *, to: str = "v1", headers: dict[str, str] | None = None) -> GrpcRule:
    return GrpcRule((GrpcMatch(service, method, headers=values(headers or {})),), backends=(backend(to),))


def http_route(*rules: HttpRule, name: str = "route", clients: str = "", created: float = 0.0) -> Route:
    return Route("mesh", name, created, clients, http=rules)


def grpc_route(*rules: GrpcRule, name: str = "grpc") -> Route:
    return Route("mesh", name, grpc=rules)


def tables(*routes: Route, port: int = 80, policies: tuple[PolicyKey, ...] = ()) -> Tables:
    service = ServiceRouting(WAYPOINT, ECHO, (PortRouting(port, routes=routes),), policies)
    return compile_tables((Gateway(WAYPOINT), service))


def port(*routes: Route, port: int = 80) -> PortTable:
    found = tables(*routes, port=port).port(ECHO, port)
    assert found is not None
    return found


def get(target: str = "/", method: str = "GET", *, authority: str = "echo", **headers: str) -> Request:
    """A keyword is a header, "_" for "-"."""
    path, mark, query = target.partition("?")
    lines = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Request(method, "http", authority, path, mark + query, lines)


def choose(table: PortTable, request: Request, chance: float = 0.5, namespace: str = "mesh") -> Forward | Reply:
    return table.choose(request, client(namespace), chance)


def outcome(table: PortTable, request: Request, chance: float = 0.5, namespace: str = "mesh") -> str | int:
    """The backend's name, or the status of a reply."""
    chosen = choose(table, request, chance, namespace)
    return str(chosen.to.service) if isinstance(chosen, Forward) else chosen.status


def forwarded(table: PortTable, request: Request, chance: float = 0.5) -> Forward:
    chosen = choose(table, request, chance)
    assert isinstance(chosen, Forward), chosen
    return chosen


def replied(table: PortTable, request: Request, chance: float = 0.5) -> Reply:
    chosen = choose(table, request, chance)
    assert isinstance(chosen, Reply), chosen
    return chosen
