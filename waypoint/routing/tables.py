"""All that a waypoint serves, compiled once per configuration: services, their ports, routes and policies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mesh.model.http_policy import HttpPolicy
from mesh.model.routing import Gateway, PortRouting, Resource, Route, ServiceRouting
from mesh.model.workload import PolicyKey, ServiceKey
from mesh.policy.http.evaluate import CompiledPolicy, HttpPolicies
from waypoint.routing.candidates import age, grpc_candidates, http_candidates
from waypoint.routing.matching import MatchIndex
from waypoint.routing.replies import local_reply
from waypoint.routing.request import Client, Destination, Forward, Reply, Request
from waypoint.routing.rules import Action
from waypoint.routing.streams import Connect, Refuse, StreamRoutes

NO_GATEWAY = PolicyKey("(the policies of the waypoint)")  # while the Gateway is not there, nobody knows which they are


class PortTable:
    """One port of a service. A client's namespace may have routes of its own, which then replace all others for it."""

    __slots__ = ("_consumers", "_producer", "_self", "_where", "problems")

    def __init__(self, service: ServiceKey, routing: PortRouting) -> None:
        self.problems: list[str] = []  # matches that cannot be compiled, and are left out
        self._self = Destination(service, routing.port, routing.protocol)
        self._where = f"{service}:{routing.port}"
        by_clients: dict[str, list[Route]] = {}
        for route in sorted(routing.routes, key=age):
            by_clients.setdefault(route.clients, []).append(route)
        compiled = {clients: self._compile(routes, routing.port) for clients, routes in by_clients.items()}
        self._producer = compiled.pop("", None)
        self._consumers = compiled

    def choose(self, request: Request, client: Client, chance: float) -> Forward | Reply:
        """What becomes of an HTTP request. `chance` is in [0, 1)."""
        routes = self._routes_for(client)
        if routes is None:
            return Forward(self._self, request)
        if isinstance(routes, StreamRoutes):
            return local_reply(request, 500, f"the routes of {self._where} are not for HTTP")
        action = routes.find(request)
        if action is None:
            return local_reply(request, 404, f"no route of {self._where} takes this request")
        return action.decide(request, chance)

    def connect(self, client: Client, sni: str, chance: float) -> Connect | Refuse:
        """What becomes of a connection that is not HTTP. `sni` is "" for what is not TLS."""
        routes = self._routes_for(client)
        if routes is None:
            return Connect(self._self)
        if isinstance(routes, StreamRoutes):
            return routes.connect(sni, chance)
        return Refuse(f"the routes of {self._where} are for HTTP, which this connection is not")

    def routes_streams(self, client: Client) -> bool:
        """Whether connections of this client go by TLS or TCP routes, whatever they carry."""
        return isinstance(self._routes_for(client), StreamRoutes)

    def _routes_for(self, client: Client) -> MatchIndex[Action] | StreamRoutes | None:
        return self._consumers.get(client.namespace, self._producer) if self._consumers else self._producer

    def _compile(self, routes: list[Route], port: int) -> MatchIndex[Action] | StreamRoutes:
        """One kind of route serves a port: GRPCRoute, else HTTPRoute, else TLSRoute, else TCPRoute (GEP-1294)."""
        if any(route.grpc is not None for route in routes):
            return MatchIndex(grpc_candidates(routes, port, self.problems.append))
        if any(route.http is not None for route in routes):
            return MatchIndex(http_candidates(routes, port, self.problems.append))
        return StreamRoutes(routes)


class ServiceTable:
    """A service that passes the waypoint."""

    __slots__ = ("ports", "routing")

    def __init__(self, routing: ServiceRouting) -> None:
        self.routing = routing
        self.ports = {port.port: PortTable(routing.service, port) for port in routing.ports}


class Tables:
    """What a request walks. Made by `compile_tables`, never changed."""

    __slots__ = ("_compiled", "_of_workloads", "_policies", "_services", "gateway")

    def __init__(self, gateway: Gateway | None, services: Iterable[ServiceTable], policies: _Compiled) -> None:
        self.gateway = gateway
        self._services = {service.routing.service: service for service in services}
        self._compiled = policies
        common = gateway.policies if gateway else (NO_GATEWAY,)
        self._of_workloads = self._policies_named(common)
        self._policies = {
            key: self._policies_named((*common, *service.routing.policies)) for key, service in self._services.items()
        }

    def service(self, key: ServiceKey) -> ServiceTable | None:
        return self._services.get(key)

    def port(self, service: ServiceKey, port: int) -> PortTable | None:
        """None for a service that does not pass this waypoint, and for a port that it has not."""
        found = self._services.get(service)
        return found.ports.get(port) if found else None

    def policies(self, service: ServiceKey | None = None) -> HttpPolicies:
        """Those that hold for a service, or with None for connections to pods."""
        return self._of_workloads if service is None else self._policies.get(service, self._of_workloads)

    def problems(self) -> list[str]:
        """What is served otherwise than it was written, and why."""
        ports = (port for service in self._services.values() for port in service.ports.values())
        found = [problem for port in ports for problem in port.problems]
        return found + [error for _, policy in self._compiled.values() for error in policy.errors]

    def _policies_named(self, names: Iterable[PolicyKey]) -> HttpPolicies:
        wanted = dict.fromkeys(names)
        found = [self._compiled[name][1] for name in wanted if name in self._compiled]
        return HttpPolicies.of(found, [name for name in wanted if name not in self._compiled])


_Compiled = Mapping[PolicyKey, tuple[HttpPolicy, CompiledPolicy]]


def compile_tables(resources: Iterable[Resource], previous: Tables | None = None) -> Tables:
    """The tables of all that was published. What has not changed since `previous` is not compiled again.

    Raises nothing: what cannot be compiled is refused, or left out, in its place; see `Tables.problems`.
    """
    gateway: Gateway | None = None
    services: list[ServiceTable] = []
    policies: dict[PolicyKey, tuple[HttpPolicy, CompiledPolicy]] = {}
    for resource in resources:
        if isinstance(resource, Gateway):
            gateway = resource
        elif isinstance(resource, ServiceRouting):
            services.append(_service_table(resource, previous))
        elif isinstance(resource, HttpPolicy):
            policies[resource.policy] = _policy(resource, previous)
    return Tables(gateway, services, policies)


def _service_table(routing: ServiceRouting, previous: Tables | None) -> ServiceTable:
    known = previous.service(routing.service) if previous else None
    return known if known is not None and known.routing == routing else ServiceTable(routing)


def _policy(policy: HttpPolicy, previous: Tables | None) -> tuple[HttpPolicy, CompiledPolicy]:
    known = previous._compiled.get(policy.policy) if previous else None
    return known if known is not None and known[0] == policy else (policy, CompiledPolicy.of(policy))
