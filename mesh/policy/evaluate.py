"""Whether a connection may reach a workload: Istio's L4 semantics, closed where something is missing.

Source of the rules: istio.security.Authorization. Any DENY that matches denies; without an ALLOW policy the rest is
allowed; with one, some ALLOW must match.
"""

from __future__ import annotations

from msgspec import Struct

from mesh.model.policy import Authorization, PolicySet
from mesh.model.workload import PolicyKey
from mesh.policy.match import ConnectionFacts, clause_that_fails, rule_that_matches


class Permit(Struct, frozen=True):
    """The evidence that policy allows a connection: what dials an app asks for one."""

    facts: ConnectionFacts
    policy: PolicyKey | None  # the ALLOW policy that matched; None when there is none
    reason: str
    dry_run: tuple[str, ...] = ()  # what policies on trial would have done


class Denial(Struct, frozen=True):
    """Why a connection is not allowed, naming the policy and what in it decided."""

    reason: str
    policy: PolicyKey | None
    dry_run: tuple[str, ...] = ()


def evaluate(policies: PolicySet, facts: ConnectionFacts) -> Permit | Denial:
    """Decide on one connection. A policy that is referenced but was not delivered denies."""
    trial = tuple(_on_trial(policy, facts) for policy in policies.dry_run)
    if policies.missing:
        key = policies.missing[0]
        return Denial(f"policy {key} is referenced by the workload but has not been delivered", key, trial)
    for policy in policies.deny:
        matched = rule_that_matches(policy, facts)
        if matched is not None:
            return Denial(f"policy {policy.key} denies: {matched}", policy.key, trial)
    if not policies.allow:
        return Permit(facts, None, "no policy allows only some", trial)
    for policy in policies.allow:
        matched = rule_that_matches(policy, facts)
        if matched is not None:
            return Permit(facts, policy.key, f"policy {policy.key} allows: {matched}", trial)
    return Denial(_none_allows(policies, facts), policies.allow[0].key, trial)


def _none_allows(policies: PolicySet, facts: ConnectionFacts) -> str:
    first = policies.allow[0]
    others = f" nor {len(policies.allow) - 1} other(s)" if len(policies.allow) > 1 else ""
    return (
        f"no ALLOW policy matches, neither {first.key} ({clause_that_fails(first, facts)}){others}"
        if others
        else (f"the only ALLOW policy {first.key} does not match: {clause_that_fails(first, facts)}")
    )


def _on_trial(policy: Authorization, facts: ConnectionFacts) -> str:
    matched = rule_that_matches(policy, facts)
    if matched is None:
        return f"policy {policy.key} (dry run, {policy.action.name}) does not match"
    return f"policy {policy.key} (dry run, {policy.action.name}) matches: {matched}"
