"""What policies for requests mean for a connection that carries none: nothing gets past them by not being HTTP.

As Istio has it for TCP: a rule that allows requests allows no such connection; one that denies some requests denies the
connection of everybody whom its other clauses match, since what it looks at cannot be seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from mesh.model.http_policy import Condition, HttpAction, HttpPolicy, Operation, PolicyRule, Source

_OPERATION = ("hosts", "not_hosts", "methods", "not_methods", "paths", "not_paths")
_SOURCE = ("remote_ip_blocks", "not_remote_ip_blocks")  # of a header
_REQUEST = ("request.", "remote.ip")


def for_connections(policy: HttpPolicy) -> HttpPolicy:
    """The policy as it holds for connections that are not HTTP."""
    rules = tuple(map(_without_http, policy.rules))
    if policy.action is HttpAction.DENY:
        return msgspec.structs.replace(policy, rules=tuple(each.rule for each in rules))
    return msgspec.structs.replace(policy, rules=tuple(each.rule for each in rules if not each.changed))


@dataclass(frozen=True, slots=True)
class _Stripped:
    rule: PolicyRule
    changed: bool


def _without_http(rule: PolicyRule) -> _Stripped:
    stripped = msgspec.structs.replace(
        rule,
        operations=tuple(_strip_operation(each) for each in rule.operations),
        sources=tuple(_strip_source(each) for each in rule.sources),
        conditions=tuple(each for each in rule.conditions if not _is_of_request(each)),
    )
    return _Stripped(stripped, stripped != rule)


def _strip_operation(operation: Operation) -> Operation:
    return msgspec.structs.replace(operation, **dict.fromkeys(_OPERATION, ()))


def _strip_source(source: Source) -> Source:
    return msgspec.structs.replace(source, **dict.fromkeys(_SOURCE, ()))


def _is_of_request(condition: Condition) -> bool:
    return condition.key.startswith(_REQUEST)
