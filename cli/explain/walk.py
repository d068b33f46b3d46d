"""From the client to the destination, deciding at each part as that part does. Pure, but for asking the views."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import replace
from itertools import islice

from cli.explain import at_waypoint, destination
from cli.explain.answer import Asked, Explanation, Request, Step, Verdict, Way
from cli.explain.draws import outcomes
from cli.explain.names import Meant
from cli.explain.views import NodeView, Views
from mesh.model.address import SocketAddress
from mesh.model.balance import Dial, Unavailable, Upstream, choose_upstream
from mesh.model.workload import TunnelProtocol, Workload
from waypoint.routing.request import Client
from ztunnel.plan.outbound import plan_outbound
from ztunnel.plan.plan import OutboundPlan, PassThrough, Refuse, Tunnel

SOME_PORT = 49152  # of the client's socket, which nobody has opened: nothing is decided by it
MOST_WAYS = 32  # that are looked at; a Service of a thousand pods needs no thousand explanations


def walk(views: Views, source: Workload, word: str, meant: Meant, request: Request) -> Explanation:
    """Raises NoAnswer: the client's own node cannot be asked."""
    view = views.node(source.node)
    name = f"{source.namespace}/{source.name}"
    asked = Asked(name, word, SocketAddress(meant.addresses[0], meant.port), request)
    captured = view.captures(source)
    common = (_enrolment(views, view, source), Step("name", f"ztunnel of {view.name}", _named(word, meant)))
    found = (
        way
        for ip in meant.addresses
        for way in _ways(views, view, source, SocketAddress(ip, meant.port), meant.host, request, captured)
    )
    ways = tuple(islice(found, MOST_WAYS))
    return Explanation(asked, common, ways, left_out=sum(1 for _ in found))


def _enrolment(views: Views, view: NodeView, source: Workload) -> Step:
    name, place = f"{source.namespace}/{source.name}", f"ztunnel of {view.name}"
    why = views.why_enrolled(source.namespace, source.name)
    if not view.captures(source):
        return Step("enrolment", name, f"{name} is not in the mesh ({why}): what it sends is plain TCP, as nobody's")
    return Step("enrolment", place, f"{name} is in the mesh ({why}): what it dials is captured, as {source.identity}")


def _named(word: str, meant: Meant) -> str:
    shown = ", ".join(meant.addresses[:4]) + (", ..." if len(meant.addresses) > 4 else "")
    return f"{word} is {meant.how}: {shown}, port {meant.port}"


def _ways(
    views: Views, view: NodeView, source: Workload, to: SocketAddress, host: str, request: Request, captured: bool
) -> Iterator[Way]:
    if not captured:
        yield from _plain(views, view, source, to)
        return
    for plan, _ in outcomes(lambda chance: plan_outbound(view.mesh, source.uid, to, chance), _plan_key):
        yield from _onwards(views, view, source, to, host, request, plan)


def _onwards(
    views: Views, view: NodeView, source: Workload, to: SocketAddress, host: str, request: Request, plan: OutboundPlan
) -> Iterator[Way]:
    place = f"ztunnel of {view.name}"
    if isinstance(plan, Refuse):
        yield Way((Step("path", place, f"refused: {plan.reason}"),), Verdict.DENIED, plan.reason)
    elif isinstance(plan, PassThrough):
        yield from _passed(views, view, source, plan)
    else:
        target = view.mesh.workload(plan.workload)
        assert target is not None  # the plan is made of the same state
        step = Step("path", place, _tunnel(views, view, source, to, plan, target))
        yield from _tunnelled(views, source, host, request, plan, target, step)


def _tunnelled(
    views: Views, source: Workload, host: str, request: Request, plan: Tunnel, target: Workload, step: Step
) -> Iterator[Way]:
    own = SocketAddress(source.addresses[0], SOME_PORT)
    if not plan.via_waypoint:
        sender = destination.Sender(source.identity, own)
        yield destination.by_tunnel(views, target, plan.authority, sender, (step,))
        return
    client = Client(source.identity, source.namespace, own)
    for way in at_waypoint.ways(views, target, plan.authority, client, request, host):
        yield replace(way, steps=(step, *way.steps))


def _tunnel(views: Views, view: NodeView, source: Workload, to: SocketAddress, plan: Tunnel, target: Workload) -> str:
    proves = " or ".join(sorted(map(str, plan.identities)))
    where = f"{target.namespace}/{target.name} on {target.node}"
    if not plan.via_waypoint:
        return f"a tunnel straight to pod {where}, which has to prove {proves}"
    why = _binding(views, view, source, to)
    return f"a tunnel to waypoint pod {where}, which has to prove {proves}; {why}"


def _binding(views: Views, view: NodeView, source: Workload, to: SocketAddress) -> str:
    """Whose waypoint it is: the Service's, or of the pods behind the address."""
    service = view.mesh.service_at(source.network, to.ip, source.namespace)
    if service is not None and (service.waypoint is not None or service.weighted_waypoints):
        why = views.why_bound("Service", service.namespace, service.name)
        return f"Service {service.namespace}/{service.name} is bound to it" + (f" by {why}" if why else "")
    if service is not None:
        return f"the pod that was drawn for Service {service.namespace}/{service.name} is bound to it"
    pod = view.mesh.workload_at(source.network, to.ip)
    if pod is None:
        return "the destination is bound to it"
    why = views.why_bound("Pod", pod.namespace, pod.name)
    return f"pod {pod.namespace}/{pod.name} is bound to it" + (f" by {why}" if why else "")


# --- without a tunnel


def _passed(views: Views, view: NodeView, source: Workload, plan: PassThrough) -> Iterator[Way]:
    step = Step("path", f"ztunnel of {view.name}", f"plain TCP to {plan.destination}: {plan.reason}")
    if plan.workload is None or plan.workload == source.uid:
        yield Way((step,), Verdict.ALLOWED, f"{plan.reason}: the mesh does not look at it")
        return
    target = view.mesh.workload(plan.workload)
    assert target is not None
    yield _after(step, _arrives(views, target, plan.destination, source))


def _plain(views: Views, view: NodeView, source: Workload, to: SocketAddress) -> Iterator[Way]:
    """The node's own Service rules choose the endpoint."""
    place = f"{source.namespace}/{source.name}"
    service = view.mesh.service_at(source.network, to.ip, source.namespace)
    if service is None:
        target = view.mesh.workload_at(source.network, to.ip)
        step = Step("path", place, f"plain TCP to {to}")
        if target is None:
            yield Way((step,), Verdict.ALLOWED, "neither end is in the mesh")
        else:
            yield _after(step, _arrives(views, target, to, source))
        return
    drawn = outcomes(lambda chance: choose_upstream(Dial(view.mesh, source, to, chance), service), _upstream_key)
    for upstream, _ in drawn:
        if isinstance(upstream, Unavailable):
            yield Way((Step("path", place, upstream.reason),), Verdict.DENIED, upstream.reason)
        else:
            step = Step("path", place, f"plain TCP to {upstream.address}, an endpoint of Service {service.key}")
            yield _after(step, _arrives(views, upstream.workload, upstream.address, source))


def _arrives(views: Views, target: Workload, address: SocketAddress, source: Workload) -> Way:
    captured = target.tunnel_protocol is TunnelProtocol.HBONE
    return destination.by_plain_text(views, target, address, SocketAddress(source.addresses[0], SOME_PORT), captured)


def _after(step: Step, way: Way) -> Way:
    return replace(way, steps=(step, *way.steps))


def _plan_key(plan: OutboundPlan) -> Hashable:
    if isinstance(plan, Refuse):
        return plan.reason
    return type(plan).__name__, plan.workload, getattr(plan, "authority", "")


def _upstream_key(upstream: Upstream | Unavailable) -> Hashable:
    return upstream.reason if isinstance(upstream, Unavailable) else upstream.workload.uid
