"""Short ways to write requests and policies."""

from __future__ import annotations

from mesh.model.address import Ip, SocketAddress
from mesh.model.http_policy import Condition, HttpAction, HttpPolicy, Operation, PolicyRule, Source
from mesh.model.identity import SpiffeId
from mesh.model.workload import PolicyKey
from mesh.policy.evaluate import Denial, Permit
from mesh.policy.http.evaluate import CompiledPolicy, HttpPolicies, evaluate_http
from mesh.policy.http.facts import RequestFacts
from mesh.policy.match import ConnectionFacts

WEB = SpiffeId("cluster.local", "shop", "web")


def facts(
    method: str = "GET",
    path: str = "/",
    *,
    authority: str = "catalog.shop",
    headers: tuple[tuple[str, str], ...] = (),
    peer: SpiffeId | None = WEB,
    source: str = "10.0.0.1",
    sni: str = "",
    trusted_hops: int = 0,
) -> RequestFacts:
    connection = ConnectionFacts(Ip(source), SocketAddress(Ip("10.0.0.2"), 8080), peer)
    return RequestFacts(connection, method, authority, path, headers, sni, trusted_hops)


def rule(
    source: Source | None = None, to: Operation | None = None, when: Condition | None = None, error: str = ""
) -> PolicyRule:
    return PolicyRule(
        (source,) if source else (), (to,) if to else (), (when,) if when else (), error
    )  # fmt: skip


def policy(
    *rules: PolicyRule, action: HttpAction = HttpAction.ALLOW, name: str = "p", dry_run: bool = False
) -> HttpPolicy:
    return HttpPolicy("shop", name, action, rules, dry_run)


def verdict(request: RequestFacts, *policies: HttpPolicy, missing: tuple[str, ...] = ()) -> Permit | Denial:
    return evaluate_http(HttpPolicies.of(map(CompiledPolicy.of, policies), map(PolicyKey, missing)), request)


def allowed(request: RequestFacts, *policies: HttpPolicy) -> bool:
    return isinstance(verdict(request, *policies), Permit)


def allows(one: PolicyRule, request: RequestFacts) -> bool:
    """As the only rule of an ALLOW policy."""
    return allowed(request, policy(one))


def denies(one: PolicyRule, request: RequestFacts) -> bool:
    """As the only rule of a DENY policy."""
    return not allowed(request, policy(one, action=HttpAction.DENY))
