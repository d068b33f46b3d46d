"""Whether a request may go on: Istio's order of policies, closed where one is missing or cannot be evaluated.

DENY that matches denies; without an ALLOW policy the rest is allowed; with one, some ALLOW must match. AUDIT and dry
run decide nothing, they are reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.model.http_policy import HttpAction, HttpPolicy
from mesh.model.workload import PolicyKey
from mesh.policy.evaluate import Denial, Permit
from mesh.policy.http.facts import RequestFacts
from mesh.policy.http.match import CompiledRule, compile_rule


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy whose rules are compiled, once for all requests."""

    key: PolicyKey
    action: HttpAction
    dry_run: bool
    rules: tuple[CompiledRule, ...]

    @classmethod
    def of(cls, policy: HttpPolicy) -> CompiledPolicy:
        return cls(policy.policy, policy.action, policy.dry_run, tuple(map(compile_rule, policy.rules)))

    @property
    def errors(self) -> tuple[str, ...]:
        """What cannot be evaluated, for the operator."""
        return tuple(
            f"policy {self.key} rule {number}: {rule.error}" for number, rule in enumerate(self.rules, 1) if rule.error
        )


@dataclass(frozen=True, slots=True)
class HttpPolicies:
    """The policies that hold for one destination, in the order in which they decide."""

    deny: tuple[CompiledPolicy, ...] = ()
    allow: tuple[CompiledPolicy, ...] = ()
    reported: tuple[CompiledPolicy, ...] = ()  # AUDIT and dry run
    missing: tuple[PolicyKey, ...] = ()  # named, but not delivered

    @classmethod
    def of(cls, policies: Iterable[CompiledPolicy], missing: Iterable[PolicyKey] = ()) -> HttpPolicies:
        policies = sorted(policies, key=lambda policy: policy.key)
        enforced = [policy for policy in policies if not policy.dry_run]
        return cls(
            deny=tuple(policy for policy in enforced if policy.action is HttpAction.DENY),
            allow=tuple(policy for policy in enforced if policy.action is HttpAction.ALLOW),
            reported=tuple(policy for policy in policies if policy.dry_run or policy.action is HttpAction.AUDIT),
            missing=tuple(sorted(missing)),
        )


def evaluate_http(policies: HttpPolicies, facts: RequestFacts) -> Permit | Denial:
    """Decide on one request. A policy that is named but was not delivered denies."""
    reports = tuple([_reported(policy, facts) for policy in policies.reported])
    if policies.missing:
        key = policies.missing[0]
        return Denial(f"policy {key} holds for the destination but has not been delivered", key, reports)
    for policy in policies.deny:
        matched = rule_that_matches(policy, facts)
        if matched is not None:
            return Denial(f"policy {policy.key} denies: {matched}", policy.key, reports)
    if not policies.allow:
        return Permit(facts.connection, None, "no policy allows only some", reports)
    for policy in policies.allow:
        matched = rule_that_matches(policy, facts)
        if matched is not None:
            return Permit(facts.connection, policy.key, f"policy {policy.key} allows: {matched}", reports)
    return Denial(_none_allows(policies.allow, facts), policies.allow[0].key, reports)


def rule_that_matches(policy: CompiledPolicy, facts: RequestFacts) -> str | None:
    """The first rule that matches, in words. What cannot be evaluated counts as true, but allows nothing."""
    allows = policy.action is HttpAction.ALLOW
    for number, rule in enumerate(policy.rules, 1):
        if (rule.error and allows) or rule.failing(facts, allows) is not None:
            continue
        broken = f", of which this cannot be evaluated: {rule.error}" if rule.error else ""
        return f"rule {number} ({rule.words}){broken}"
    return None


def _none_allows(policies: tuple[CompiledPolicy, ...], facts: RequestFacts) -> str:
    first = policies[0]
    why = clause_that_fails(first, facts)
    if len(policies) == 1:
        return f"the only ALLOW policy {first.key} does not match: {why}"
    return f"no ALLOW policy matches, neither {first.key} ({why}) nor {len(policies) - 1} other(s)"


def clause_that_fails(policy: CompiledPolicy, facts: RequestFacts) -> str:
    """Why the policy's first rule does not match, in words."""
    if not policy.rules:
        return "it has no rules"
    rule = policy.rules[0]
    if rule.error:
        return f"rule 1 cannot be evaluated: {rule.error}"
    return f"rule 1 needs {rule.failing(facts, policy.action is HttpAction.ALLOW)}"


def _reported(policy: CompiledPolicy, facts: RequestFacts) -> str:
    what = f"policy {policy.key} ({'dry run, ' if policy.dry_run else ''}{policy.action})"
    matched = rule_that_matches(policy, facts)
    return f"{what} does not match" if matched is None else f"{what} matches: {matched}"
