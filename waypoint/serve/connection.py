"""One connection of a client through this waypoint: for whom it is, and what of it is the same for all its requests."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.hbone.connect_headers import FORWARDED, parse_forwarded
from mesh.model.address import Ip, SocketAddress
from mesh.model.workload import ServiceKey
from mesh.policy.evaluate import Denial
from mesh.policy.http.evaluate import HttpPolicies, evaluate_http
from mesh.policy.http.facts import RequestFacts
from mesh.policy.match import ConnectionFacts
from waypoint.plan.target import ServiceTarget, Target
from waypoint.plan.world import World
from waypoint.routing.request import Client, Request
from waypoint.routing.tables import PortTable
from waypoint.tunnel.server import Connect


@dataclass(frozen=True, slots=True)
class Arrival:
    """Tables and policies are looked up for each request: a change holds from the next one on."""

    world: World
    target: Target
    client: Client
    facts: ConnectionFacts

    @property
    def service(self) -> ServiceKey | None:
        return self.target.service.key if isinstance(self.target, ServiceTarget) else None

    def table(self) -> PortTable | None:
        """None for a pod's address, which routes do not concern."""
        if not isinstance(self.target, ServiceTarget):
            return None
        return self.world.tables.port(self.target.service.key, self.target.routing.port)

    @property
    def withdrawn(self) -> bool:
        """Whether the service does not pass this waypoint (on this port) any more."""
        return isinstance(self.target, ServiceTarget) and self.table() is None

    def policies(self) -> HttpPolicies:
        return self.world.tables.policies(self.service)

    def judge(self, request: Request) -> Denial | None:
        policies = self.policies()
        if not (policies.deny or policies.allow or policies.missing or policies.reported):
            return None
        facts = RequestFacts(self.facts, request.method, request.authority, request.path, request.headers)
        verdict = evaluate_http(policies, facts)
        return verdict if isinstance(verdict, Denial) else None

    def judge_connection(self, sni: str) -> Denial | None:
        """A connection that is not HTTP: see plan.stream_policy."""
        policies = self.world.connection_tables.policies(self.service)
        verdict = evaluate_http(policies, RequestFacts(self.facts, sni=sni))
        return verdict if isinstance(verdict, Denial) else None


def arrival(world: World, connect: Connect, target: Target) -> Arrival:
    claimed = parse_forwarded(connect.request.headers.get(FORWARDED, "")).client
    # The tunnel's own address is proved; only the port of the app's socket is believed from the header.
    address = (
        claimed if claimed is not None and claimed.ip == connect.remote.ip else SocketAddress(connect.remote.ip, 0)
    )
    client = Client(connect.peer, connect.peer.namespace, address)
    dialled = connect.request.address or SocketAddress(_address_of(target, address.ip), connect.request.port)
    return Arrival(world, target, client, ConnectionFacts(address.ip, dialled, connect.peer))


def _address_of(target: Target, otherwise: Ip) -> Ip:
    """What a policy for `destination.ip` compares when the client has asked for a name."""
    addresses = target.service.addresses if isinstance(target, ServiceTarget) else ()
    return next((each.ip for each in addresses), otherwise)
