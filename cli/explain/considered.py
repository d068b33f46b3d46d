"""Every policy that holds somewhere, with its own verdict: of connections and of requests. Pure."""

from __future__ import annotations

from cli.explain.answer import Considered
from mesh.model.http_policy import HttpAction
from mesh.model.policy import PolicySet
from mesh.policy import match
from mesh.policy.http import evaluate
from mesh.policy.http.evaluate import CompiledPolicy, HttpPolicies
from mesh.policy.http.facts import RequestFacts
from mesh.policy.match import ConnectionFacts

NOT_DELIVERED = "it is named but has not been delivered, so everything is denied"


def of_connection(policies: PolicySet, facts: ConnectionFacts) -> tuple[Considered, ...]:
    """In the order in which they decide."""
    found = [Considered(key, "-", True, NOT_DELIVERED) for key in policies.missing]
    for policy in (*policies.deny, *policies.allow, *policies.dry_run):
        rule = match.rule_that_matches(policy, facts)
        because = match.clause_that_fails(policy, facts) if rule is None else rule
        found.append(Considered(policy.key, _action(policy.action.name, policy.dry_run), rule is not None, because))
    return tuple(found)


def of_request(policies: HttpPolicies, facts: RequestFacts) -> tuple[Considered, ...]:
    found = [Considered(key, "-", True, NOT_DELIVERED) for key in policies.missing]
    for policy in (*policies.deny, *policies.allow, *policies.reported):
        rule = evaluate.rule_that_matches(policy, facts)
        because = evaluate.clause_that_fails(policy, facts) if rule is None else rule
        found.append(Considered(policy.key, _name(policy), rule is not None, because))
    return tuple(found)


def _name(policy: CompiledPolicy) -> str:
    return _action(policy.action.value, policy.dry_run and policy.action is not HttpAction.AUDIT)


def _action(name: str, dry_run: bool) -> str:
    return f"{name} (dry run)" if dry_run else name
