"""The middle of a way that passes a waypoint: what it takes, which policies and routes hold, whom it dials."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace

from cli.explain import considered, destination
from cli.explain.answer import Considered, Step, Verdict, Way
from cli.explain.answer import Request as AskedRequest
from cli.explain.draws import outcomes
from cli.explain.views import Views
from cli.home import NoAnswer
from mesh.model.address import Ip, SocketAddress, canonical, split_authority
from mesh.model.balance import Chance, Unavailable
from mesh.model.routing import AppProtocol
from mesh.model.workload import Workload
from mesh.policy.evaluate import Denial
from mesh.policy.http.evaluate import evaluate_http
from mesh.policy.http.facts import RequestFacts
from mesh.policy.match import ConnectionFacts
from waypoint.plan.hop import Hop, hop_to_service, hop_to_workload
from waypoint.plan.target import Refusal, ServiceTarget, Target, WorkloadTarget, find_target
from waypoint.plan.world import World
from waypoint.routing.paths import BadTarget, read_target
from waypoint.routing.request import Client, Destination, Forward, Reply, Request
from waypoint.routing.streams import Connect as StreamConnect
from waypoint.routing.streams import Refuse
from waypoint.serve.connection import Arrival

STREAMS = (AppProtocol.TCP, AppProtocol.TLS)


def ways(
    views: Views, waypoint: Workload, authority: str, client: Client, asked: AskedRequest, authority_name: str
) -> Iterator[Way]:
    """From the CONNECT `authority` that reaches the pod `waypoint`. `authority_name` is the Host of the request."""
    place = f"waypoint {waypoint.namespace}/{waypoint.name}"
    try:
        world = views.waypoint(waypoint)
    except NoAnswer as problem:
        yield Way((Step("waypoint", place, str(problem)),), Verdict.UNKNOWN, str(problem))
        return
    host, port = split_authority(authority)
    target = find_target(world, host, port)
    if isinstance(target, Refusal):
        yield _denied((), Step("waypoint", place, f"refused with {target.status}: {target.reason}"), target.reason)
        return
    facts = ConnectionFacts(client.address.ip, SocketAddress.parse(authority), client.identity)
    arrival = Arrival(world, target, client, facts)
    through = _Through(views, place, arrival, asked, authority_name)
    yield from through.requests() if through.is_http else through.connection()


class _Through:
    """One arrival at one pod of a waypoint."""

    def __init__(self, views: Views, place: str, arrival: Arrival, asked: AskedRequest, host: str) -> None:
        self._views, self._place, self._arrival, self._asked, self._host = views, place, arrival, asked, host
        table = arrival.table()
        streams = table is not None and table.routes_streams(arrival.client)
        self.is_http = arrival.target.protocol not in STREAMS and not streams

    # --- requests

    def requests(self) -> Iterator[Way]:
        read = read_target(self._asked.method, self._asked.path, self._host, None)
        if isinstance(read, BadTarget):
            yield _denied((), self._step("request", f"refused with {read.status}: {read.reason}"), read.reason)
            return
        headers = tuple((name.lower(), value) for name, value in self._asked.headers)
        request = Request(self._asked.method, "http", read.authority, read.path, read.query, headers)
        facts = RequestFacts(self._arrival.facts, request.method, request.authority, request.path, request.headers)
        policies = self._arrival.policies()
        verdict = evaluate_http(policies, facts)
        steps = (self._taken(), self._policy(considered.of_request(policies, facts), "requests"))
        if isinstance(verdict, Denial):
            yield _denied(steps, self._step("request", "answered with 403"), verdict.reason)
            return
        for decision, share in self._routed(request):
            yield from (_part(way, share) for way in self._decided(decision, steps))

    def _routed(self, request: Request) -> list[tuple[Forward | Reply | None, float]]:
        arrival = self._arrival
        if isinstance(arrival.target, WorkloadTarget):
            target = arrival.target
            return [(Forward(Destination(target.service or "", target.port), request), 1.0)]  # type: ignore[arg-type]
        table = arrival.table()
        if table is None:
            return [(None, 1.0)]
        return [*outcomes(lambda chance: table.choose(request, arrival.client, chance()), _decision_key)]

    def _decided(self, decision: Forward | Reply | None, steps: tuple[Step, ...]) -> Iterator[Way]:
        if decision is None:
            reason = "the service does not pass this waypoint any more"
            yield _denied(steps, self._step("route", reason), reason)
        elif isinstance(decision, Reply):
            yield self._replied(decision, steps)
        else:
            route = self._step("route", self._route_words(decision.route, decision.rule, decision.to))
            for hop in self._hops(decision.to):
                yield self._hopped(hop, (*steps, route))

    def _replied(self, reply: Reply, steps: tuple[Step, ...]) -> Way:
        where = f"{_route(reply.route, reply.rule)}: " if reply.route else ""
        found = dict(reply.headers).get("location", "")
        said = f"{reply.status}" + (f" to {found}" if found else "") + (f": {reply.reason}" if reply.reason else "")
        step = self._step("route", f"{where}the waypoint itself answers {said}")
        if reply.status < 400 and reply.grpc is None:
            return Way((*steps, step), Verdict.ALLOWED, f"the waypoint itself answers {said}")
        return _denied(steps, step, f"the waypoint itself answers {said}")

    # --- connections that are not HTTP

    def connection(self) -> Iterator[Way]:
        arrival = self._arrival
        policies = arrival.world.connection_tables.policies(arrival.service)
        facts = RequestFacts(arrival.facts)
        steps = (self._taken(), self._policy(considered.of_request(policies, facts), "connections"))
        verdict = evaluate_http(policies, facts)
        if isinstance(verdict, Denial):
            yield _denied(steps, self._step("connection", "ended"), verdict.reason)
            return
        table = arrival.table()
        if table is None:
            for hop in self._hops(Destination("", 0)):  # type: ignore[arg-type]
                yield self._hopped(hop, steps)
            return
        found = outcomes(lambda chance: table.connect(arrival.client, "", chance()), _stream_key)
        for decision, share in found:
            yield from (_part(way, share) for way in self._connected(decision, steps))

    def _connected(self, decision: StreamConnect | Refuse, steps: tuple[Step, ...]) -> Iterator[Way]:
        if isinstance(decision, Refuse):
            yield _denied(steps, self._step("route", f"ended: {decision.reason}"), decision.reason)
            return
        route = self._step("route", self._route_words(decision.route, decision.rule, decision.to))
        for hop in self._hops(decision.to):
            yield self._hopped(hop, (*steps, route))

    # --- onwards

    def _hops(self, to: Destination) -> list[Hop | Unavailable]:
        world, target = self._arrival.world, self._arrival.target

        def draw(chance: Chance) -> Hop | Unavailable:
            if isinstance(target, WorkloadTarget):
                return hop_to_workload(target)
            return hop_to_service(world, to.service, to.port, chance)

        return [hop for hop, _ in outcomes(draw, _hop_key)]

    def _hopped(self, hop: Hop | Unavailable, steps: tuple[Step, ...]) -> Way:
        if isinstance(hop, Unavailable):
            return _denied(steps, self._step("hop", f"no endpoint: {hop.reason}"), hop.reason)
        world, client, name = self._arrival.world, self._arrival.client, f"{hop.workload.namespace}/{hop.workload.name}"
        own = SocketAddress(_own_address(world), 0)
        if not hop.identities:
            step = self._step("hop", f"plain TCP to {name} at {hop.address}, which takes no tunnels")
            way = destination.by_plain_text(self._views, hop.workload, hop.address, own, captured=False)
            return replace(way, steps=(*steps, step, *way.steps))
        assert world.identity is not None
        proves = " or ".join(sorted(map(str, hop.identities)))
        spoken = f"speaking for {client.identity}; the other end has to prove {proves}"
        step = self._step("hop", f"a tunnel as {world.identity} to {name} on {hop.workload.node}, {spoken}")
        sender = destination.Sender(world.identity, own, client.identity, client.address)
        return destination.by_tunnel(self._views, hop.workload, str(hop.address), sender, (*steps, step))

    # --- in words

    def _step(self, topic: str, text: str) -> Step:
        return Step(topic, self._place, text)

    def _taken(self) -> Step:
        target = self._arrival.target
        what = f"Service {target.service.key}" if isinstance(target, ServiceTarget) else f"pod {target}"
        if not self.is_http:
            return self._step("waypoint", f"takes it as a connection to {what}, which is not HTTP")
        request, doubt = self._asked, _doubt(target, self._asked)
        return self._step("waypoint", f"takes it as a request to {what}: {request.method} {request.path}{doubt}")

    def _policy(self, found: tuple[Considered, ...], of: str) -> Step:
        text = f"policies of {of} see {self._arrival.client.identity} at {self._arrival.client.address.ip}"
        return Step("policy", self._place, text + ("" if found else "; there are none here"), found)

    def _route_words(self, route: str, rule: str, to: Destination) -> str:
        if isinstance(self._arrival.target, WorkloadTarget):
            return "a pod's address was dialled: no route concerns it"
        if not route:
            return f"no route: to the Service's own endpoints, port {to.port}"
        return f"{_route(route, rule)} leads to Service {to.service} port {to.port}"


def _route(route: str, rule: str) -> str:
    return f"route {route}, rule {rule}"


def _doubt(target: Target, asked: AskedRequest) -> str:
    if not asked.assumed:
        return ""
    unsaid = target.protocol is AppProtocol.AUTO
    return f" (assumed{', as is that it is HTTP: its port does not say' if unsaid else ''})"


def _own_address(world: World) -> Ip:
    return world.workload.addresses[0] if world.workload.addresses else canonical("0.0.0.0")


def _denied(steps: tuple[Step, ...], step: Step, reason: str) -> Way:
    return Way((*steps, step), Verdict.DENIED, reason)


def _part(way: Way, share: float) -> Way:
    return replace(way, share=share)


def _decision_key(decision: Forward | Reply) -> Hashable:
    if isinstance(decision, Forward):
        return decision.to, decision.route, decision.rule
    return decision.status, decision.reason, decision.route, decision.rule


def _stream_key(decision: StreamConnect | Refuse) -> Hashable:
    return (decision.to if isinstance(decision, StreamConnect) else decision.reason), decision.route, decision.rule


def _hop_key(hop: Hop | Unavailable) -> Hashable:
    return hop.reason if isinstance(hop, Unavailable) else (hop.workload.uid, hop.address)
