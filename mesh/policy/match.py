"""Does a policy match a connection, and by which of its clauses: rules OR, clauses AND, matches OR, fields AND."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.policy import Authorization, Clause, Match, MatchKind, Rule, ServiceAccountMatch, StringMatch


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """What is known of a connection to a workload. `peer` is what TLS has proved; None for plain text."""

    source: Ip
    destination: SocketAddress  # the app's own, after the tunnel
    peer: SpiffeId | None = None


Test = Callable[[Any, ConnectionFacts], bool]


def rule_that_matches(policy: Authorization, facts: ConnectionFacts) -> str | None:
    """The first rule that matches, in words; None if none does. A policy without rules matches nothing."""
    for number, rule in enumerate(policy.rules, 1):
        if _failing_clause(rule, facts) is None:
            return f"rule {number} ({describe(rule)})"
    return None


def clause_that_fails(policy: Authorization, facts: ConnectionFacts) -> str:
    """Why the policy's first rule does not match, in words."""
    if not policy.rules:
        return "it has no rules"
    number = _failing_clause(policy.rules[0], facts)
    if number is None:
        return "it matches"
    return f"rule 1 needs {_clause_in_words(policy.rules[0].clauses[number])}"


def _failing_clause(rule: Rule, facts: ConnectionFacts) -> int | None:
    for number, clause in enumerate(rule.clauses):
        if clause.matches and not any(matches(match, facts) for match in clause.matches):
            return number
    return None


def matches(match: Match, facts: ConnectionFacts) -> bool:
    """Whether all given fields hold. A match without any field matches nothing."""
    given = False
    for positive, negative, test in _FIELDS:
        wanted, unwanted = getattr(match, positive), getattr(match, negative)
        if wanted:
            given = True
            if not any(test(value, facts) for value in wanted):
                return False
        if unwanted:
            given = True
            if any(test(value, facts) for value in unwanted):
                return False
    return given


def string_matches(pattern: StringMatch, text: str) -> bool:
    match pattern.kind:
        case MatchKind.EXACT:
            return text == pattern.value
        case MatchKind.PREFIX:
            return text.startswith(pattern.value)
        case MatchKind.SUFFIX:
            return text.endswith(pattern.value)
        case MatchKind.PRESENCE:
            return text != ""


# Without an identity (plain text) a value never matches: so a positive field fails and a negative one holds, which is
# how "not_principals: presence" finds plain text.


def _namespace(pattern: StringMatch, facts: ConnectionFacts) -> bool:
    return facts.peer is not None and string_matches(pattern, facts.peer.namespace)


def _principal(pattern: StringMatch, facts: ConnectionFacts) -> bool:
    return facts.peer is not None and string_matches(pattern, str(facts.peer).removeprefix("spiffe://"))


def _service_account(wanted: ServiceAccountMatch, facts: ConnectionFacts) -> bool:
    peer = facts.peer
    return peer is not None and (peer.namespace, peer.service_account) == (wanted.namespace, wanted.service_account)


_FIELDS: tuple[tuple[str, str, Test], ...] = (
    ("namespaces", "not_namespaces", _namespace),
    ("principals", "not_principals", _principal),
    ("service_accounts", "not_service_accounts", _service_account),
    ("source_ips", "not_source_ips", lambda block, facts: block.contains(facts.source)),
    ("destination_ips", "not_destination_ips", lambda block, facts: block.contains(facts.destination.ip)),
    ("destination_ports", "not_destination_ports", lambda port, facts: port == facts.destination.port),
)


# --- in words, for the reason of a decision


def describe(rule: Rule) -> str:
    """A rule in one line, long ones cut."""
    if not rule.clauses:
        return "matches everything"
    return _shortened(" and ".join(_clause_in_words(clause) for clause in rule.clauses))


def _clause_in_words(clause: Clause) -> str:
    return _shortened(" or ".join(_match_in_words(match) for match in clause.matches) or "anything")


def _match_in_words(match: Match) -> str:
    fields = ((name, getattr(match, name)) for pair in _FIELDS for name in pair[:2])
    words = (f"{name} {_values_in_words(values)}" for name, values in fields if values)
    return ", ".join(words) or "an empty match"


def _values_in_words(values: Iterable[object]) -> str:
    return "[" + ", ".join(_value_in_words(value) for value in values) + "]"


def _value_in_words(value: object) -> str:
    match value:
        case StringMatch(MatchKind.EXACT, text):
            return text
        case StringMatch(MatchKind.PREFIX, text):
            return f"{text}*"
        case StringMatch(MatchKind.SUFFIX, text):
            return f"*{text}"
        case StringMatch():
            return "*"
        case ServiceAccountMatch(namespace, account):
            return f"{namespace}/{account}"
    return str(value)


def _shortened(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
