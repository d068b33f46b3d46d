"""An AuthorizationPolicy as ztunnel enforces it (istio/api security/v1; istiod: serviceregistry/ambient). Pure.

A policy that cannot be read is replaced by the strictest of its scope: it was meant to restrict something.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from controller.compile.policy_rules import UNSUPPORTED, Fault, build_rule
from controller.compile.problem import Problem
from controller.store.interface import Key
from controller.store.policy_shapes import AuthorizationPolicySpec, SecurityPolicy
from mesh.model.policy import Action, Authorization, PolicyScope
from mesh.wire.authorization import strictest

DRY_RUN = "istio.io/dry-run"
INVALID = "Invalid"
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # Go's strconv.ParseBool, as Istio reads the annotation
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False", ""})

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """`authorization` is None when ztunnel has nothing to enforce; `selector` is empty unless its scope needs one."""

    authorization: Authorization | None = None
    selector: Labels = field(default_factory=dict)
    for_ztunnel: bool = True
    problems: tuple[Problem, ...] = ()

    def selects(self, labels: Labels) -> bool:
        return bool(self.selector) and self.selector.items() <= labels.items()


def compile_policy(key: Key, policy: SecurityPolicy, root_namespaces: Collection[str]) -> CompiledPolicy:
    """`root_namespaces`: a policy there that selects nothing holds in the whole mesh."""
    dry_run, problems = _dry_run(key, policy)
    try:
        spec = msgspec.convert(policy.spec, AuthorizationPolicySpec)
    except msgspec.ValidationError as error:
        return _unreadable(key, policy, root_namespaces, dry_run, str(error))
    if spec.targets and not spec.selector.match_labels:
        return CompiledPolicy(for_ztunnel=False)
    if spec.targets:
        return _unreadable(key, policy, root_namespaces, dry_run, "it has both a selector and targetRefs")
    if spec.action not in Action.__members__:
        words = f"ztunnel does not know {spec.action}, a waypoint does: the policy has no effect here"
        return CompiledPolicy(problems=(Problem(key, "spec.action", words, UNSUPPORTED),))
    action, selector = Action[spec.action], spec.selector.match_labels
    built = [build_rule(raw, f"spec.rules[{number}]", action, key.namespace) for number, raw in enumerate(spec.rules)]
    authorization = Authorization(
        key.name,
        key.namespace,
        _scope(key.namespace, selector, root_namespaces),
        action,
        tuple(rule for rules, _ in built for rule in rules),
        dry_run,
    )
    problems += tuple(_problem(key, fault) for _, faults in built for fault in faults)
    return CompiledPolicy(authorization, selector, problems=problems)


def dry_run_of(policy: SecurityPolicy) -> bool:
    """Whether it is only to be said what the policy would do."""
    return policy.metadata.annotations.get(DRY_RUN, "") in _TRUE


def _dry_run(key: Key, policy: SecurityPolicy) -> tuple[bool, tuple[Problem, ...]]:
    text = policy.metadata.annotations.get(DRY_RUN, "")
    if text in _TRUE or text in _FALSE:
        return text in _TRUE, ()
    words = f"{text!r} is neither true nor false: the policy is enforced"
    return False, (Problem(key, f'metadata.annotations["{DRY_RUN}"]', words, INVALID),)


def _scope(namespace: str, selector: Labels, root_namespaces: Collection[str]) -> PolicyScope:
    if selector:
        return PolicyScope.WORKLOAD_SELECTOR
    return PolicyScope.GLOBAL if namespace in root_namespaces else PolicyScope.NAMESPACE


def _unreadable(
    key: Key, policy: SecurityPolicy, root_namespaces: Collection[str], dry_run: bool, reason: str
) -> CompiledPolicy:
    """Denies all that it selects, and everything in its scope when nobody can say what that is."""
    selector = selector_of(policy.spec)
    authorization = strictest(
        key.namespace, key.name, _scope(key.namespace, selector, root_namespaces), Action.DENY, dry_run=dry_run
    )
    words = f"it cannot be enforced as written and denies everything that it selects: {reason}"
    return CompiledPolicy(authorization, selector, problems=(Problem(key, "spec", words, INVALID),))


def selector_of(spec: Any) -> Labels:
    """As far as it can be read."""
    selector = spec.get("selector") if isinstance(spec, Mapping) else None
    labels = selector.get("matchLabels") if isinstance(selector, Mapping) else None
    if not isinstance(labels, Mapping) or not all(isinstance(value, str) for value in labels.values()):
        return {}
    return labels


def _problem(key: Key, fault: Fault) -> Problem:
    return Problem(key, fault.field, fault.sentence, fault.reason)
