"""The last part of a way: what the destination's node does with what arrives. Pure, but for asking the view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cli.explain import considered
from cli.explain.answer import Step, Verdict, Way
from cli.explain.views import NodeView, Views
from cli.home import NoAnswer
from mesh.hbone.connect_headers import FORWARDED, SOURCE_IDENTITY, build_forwarded
from mesh.model.address import SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.ports import HBONE
from mesh.model.workload import Workload
from ztunnel.plan.inbound import Connect, plan_inbound, plan_plaintext
from ztunnel.plan.plan import Answer, Deliver, InboundPlan


@dataclass(frozen=True, slots=True)
class Sender:
    """Who opens the tunnel, and for whom: `client` is None when it speaks for itself."""

    identity: SpiffeId
    address: SocketAddress
    client: SpiffeId | None = None
    client_address: SocketAddress | None = None

    def headers(self) -> dict[str, str]:
        found = {FORWARDED: build_forwarded(self.client_address or self.address)}
        return {**found, SOURCE_IDENTITY: str(self.client)} if self.client is not None else found


def by_tunnel(views: Views, target: Workload, authority: str, sender: Sender, before: tuple[Step, ...]) -> Way:
    """CONNECT `authority` to the pod `target`."""
    view = _view(views, target)
    if isinstance(view, Way):
        return _after(before, view)
    local = SocketAddress(target.addresses[0], HBONE)
    for ip in target.addresses:
        if authority.startswith((f"{ip}:", f"[{ip}]:")):
            local = SocketAddress(ip, HBONE)
    request = Connect("CONNECT", authority, sender.headers(), local, sender.address, sender.identity)
    return _delivered(view, target, plan_inbound(view.mesh, target.uid, request), before)


def by_plain_text(views: Views, target: Workload, address: SocketAddress, source: SocketAddress, captured: bool) -> Way:
    """A plain connection to the pod `target`; `captured`: the target is in the mesh."""
    name = f"{target.namespace}/{target.name}"
    if not captured:
        step = Step("deliver", name, f"{name} is not in the mesh: the connection reaches {address} as it is")
        return Way((step,), Verdict.ALLOWED, "the destination is not in the mesh: nothing there looks at it")
    view = _view(views, target)
    if isinstance(view, Way):
        return view
    return _delivered(view, target, plan_plaintext(view.mesh, target.uid, address, source), ())


def _view(views: Views, target: Workload) -> NodeView | Way:
    place, name = f"ztunnel of {target.node}", f"{target.namespace}/{target.name}"
    try:
        view = views.node(target.node)
    except NoAnswer as problem:
        return Way((Step("deliver", place, str(problem)),), Verdict.UNKNOWN, str(problem))
    if not view.captures(target):
        state = view.pods.get(name, "not known there")
        reason = f"pod {name} is not served by the ztunnel of {target.node} ({state})"
        return Way((Step("enrolment", place, reason),), Verdict.DENIED, reason)
    return view


def _delivered(view: NodeView, target: Workload, plan: InboundPlan, before: tuple[Step, ...]) -> Way:
    steps = (*before, *_steps(view, target, plan))
    if isinstance(plan, Deliver):
        return Way(steps, Verdict.ALLOWED, plan.permit.reason)
    return Way(steps, Verdict.DENIED, plan.reason)


def _steps(view: NodeView, target: Workload, plan: InboundPlan) -> Iterator[Step]:
    place, name = f"ztunnel of {view.name}", f"{target.namespace}/{target.name}"
    yield Step("enrolment", place, f"{name} is in the mesh: {place} serves it")
    facts = plan.permit.facts if isinstance(plan, Deliver) else plan.facts
    own = view.mesh.workload(target.uid)
    if facts is not None and own is not None:
        who = f"{facts.peer} at {facts.source}" if facts.peer else f"{facts.source}, in plain text"
        found = considered.of_connection(view.mesh.policies_for(own), facts)
        text = f"policies of connections see {who}" + ("" if found else "; there are none for this pod")
        yield Step("policy", place, text, found)
    if isinstance(plan, Answer):
        yield Step("deliver", place, f"refused with {plan.status}: {plan.reason}")
    else:
        yield Step("deliver", place, f"the app is dialled at {plan.address} and sees {plan.client.ip}")


def _after(before: tuple[Step, ...], way: Way) -> Way:
    return Way((*before, *way.steps), way.verdict, way.reason)
