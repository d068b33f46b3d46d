"""L4 authorization: Istio's vectors, and closed where a policy is missing."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.model.address import Cidr, Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.policy import (
    Action,
    Authorization,
    Clause,
    Match,
    MatchKind,
    PolicyScope,
    PolicySet,
    Rule,
    ServiceAccountMatch,
    StringMatch,
)
from mesh.model.workload import PolicyKey
from mesh.policy.evaluate import Denial, Permit, evaluate
from mesh.policy.match import ConnectionFacts, matches, string_matches

PLAIN = ConnectionFacts(Ip("127.0.0.1"), SocketAddress(Ip("127.0.0.2"), 8080))
TLS = ConnectionFacts(PLAIN.source, PLAIN.destination, SpiffeId("td", "namespace", "account"))
OTHER = ConnectionFacts(
    Ip("127.0.0.3"), SocketAddress(Ip("127.0.0.4"), 9090), SpiffeId("td-alt", "ns-alt", "account-alt")
)


def exact(text: str) -> StringMatch:
    return StringMatch(MatchKind.EXACT, text)


def block(text: str) -> Cidr:
    ip, _, length = text.partition("/")
    return Cidr(Ip(ip), int(length))


FIELDS: dict[str, tuple[Any, str]] = {
    "namespaces": (exact("namespace"), "FTF"),
    "not_namespaces": (exact("namespace"), "TFT"),
    "principals": (exact("td/ns/namespace/sa/account"), "FTF"),
    "not_principals": (exact("td/ns/namespace/sa/account"), "TFT"),
    "service_accounts": (ServiceAccountMatch("namespace", "account"), "FTF"),
    "not_service_accounts": (ServiceAccountMatch("namespace", "account"), "TFT"),
    "source_ips": (block("127.0.0.1/32"), "TTF"),
    "not_source_ips": (block("127.0.0.1/32"), "FFT"),
    "destination_ips": (block("127.0.0.2/32"), "TTF"),
    "not_destination_ips": (block("127.0.0.2/32"), "FFT"),
    "destination_ports": (8080, "TTF"),
    "not_destination_ports": (8080, "FFT"),
}


def outcome(match: Match) -> str:
    return "".join("T" if matches(match, facts) else "F" for facts in (PLAIN, TLS, OTHER))


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_alone(field: str) -> None:
    value, expected = FIELDS[field]
    assert outcome(Match(**{field: (value,)})) == expected


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        (Match(), "FFF"),
        (Match(source_ips=(block("127.0.0.0/24"),)), "TTT"),
        (Match(source_ips=(block("0.0.0.0/0"),)), "TTT"),
        (Match(source_ips=(block("::/0"),)), "FFF"),
        (Match(not_source_ips=(block("127.0.0.0/24"),)), "FFF"),
        (Match(principals=(StringMatch(MatchKind.PRESENCE),)), "FTT"),
        (Match(not_principals=(StringMatch(MatchKind.PRESENCE),)), "TFF"),
        (Match(principals=(exact("spiffe://td/ns/namespace/sa/account"),)), "FFF"),
        (Match(principals=(StringMatch(MatchKind.PREFIX, "td/"),)), "FTF"),
        (Match(principals=(StringMatch(MatchKind.SUFFIX, "/sa/account-alt"),)), "FFT"),
        (Match(namespaces=(exact("nowhere"), exact("ns-alt"))), "FFT"),
        (Match(not_namespaces=(exact("nowhere"), exact("ns-alt"))), "TTF"),
        (Match(namespaces=(exact("namespace"),), destination_ports=(8080,)), "FTF"),
        (Match(namespaces=(exact("namespace"),), destination_ports=(9090,)), "FFF"),
        (Match(namespaces=(exact("namespace"),), not_destination_ports=(8080,)), "FFF"),
        (Match(service_accounts=(ServiceAccountMatch("ns-alt", "account"),)), "FFF"),
    ],
)
def test_combinations_of_fields(match: Match, expected: str) -> None:
    assert outcome(match) == expected


@pytest.mark.parametrize(
    ("kind", "pattern", "text", "expected"),
    [
        (MatchKind.EXACT, "abc", "abc", True),
        (MatchKind.EXACT, "abc", "abcd", False),
        (MatchKind.EXACT, "abc", "", False),
        (MatchKind.PREFIX, "ab", "abc", True),
        (MatchKind.PREFIX, "bc", "abc", False),
        (MatchKind.PREFIX, "abcd", "abc", False),
        (MatchKind.SUFFIX, "bc", "abc", True),
        (MatchKind.SUFFIX, "ab", "abc", False),
        (MatchKind.SUFFIX, "0abc", "abc", False),
        (MatchKind.PRESENCE, "", "abc", True),
        (MatchKind.PRESENCE, "", "", False),
    ],
)
def test_string_patterns(kind: MatchKind, pattern: str, text: str, expected: bool) -> None:
    assert string_matches(StringMatch(kind, pattern), text) is expected


# --- nesting: which connections a policy matches

YES, NO = Match(destination_ports=(8080,)), Match(destination_ports=(1,))


def policy(*rules: Rule, name: str = "p", action: Action = Action.ALLOW, dry_run: bool = False) -> Authorization:
    return Authorization(name, "ns", PolicyScope.NAMESPACE, action, rules, dry_run)


def allowed(*policies: Authorization, missing: tuple[str, ...] = (), facts: ConnectionFacts = TLS) -> bool:
    return isinstance(evaluate(PolicySet.of(policies, map(PolicyKey, missing)), facts), Permit)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((), False),
        ((Rule(),), True),
        ((Rule((Clause(),)),), True),
        ((Rule((Clause((Match(),)),)),), False),
        ((Rule((Clause((YES,)),)),), True),
        ((Rule((Clause((NO,)),)),), False),
        ((Rule((Clause((NO, YES)),)),), True),
        ((Rule((Clause((YES,)), Clause((NO,)))),), False),
        ((Rule((Clause((YES,)), Clause((YES,)))),), True),
        ((Rule((Clause((YES,)), Clause())),), True),
        ((Rule((Clause((NO,)),)), Rule((Clause((YES,)),))), True),
        ((Rule((Clause((NO,)),)), Rule((Clause((NO,)),))), False),
    ],
)
def test_rules_are_ored_clauses_anded_matches_ored(rules: tuple[Rule, ...], expected: bool) -> None:
    assert allowed(policy(*rules)) is expected


# --- several policies

MATCHING, NOT_MATCHING = (Rule((Clause((YES,)),)),), (Rule((Clause((NO,)),)),)


def allow(*rules: Rule, **fields: Any) -> Authorization:
    return policy(*rules, action=Action.ALLOW, **fields)


def deny(*rules: Rule, **fields: Any) -> Authorization:
    return policy(*rules, name="d", action=Action.DENY, **fields)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ((), True),
        ((deny(*NOT_MATCHING),), True),
        ((deny(*MATCHING),), False),
        ((deny(),), True),
        ((allow(*MATCHING),), True),
        ((allow(*NOT_MATCHING),), False),
        ((allow(),), False),
        ((allow(*MATCHING), deny(*MATCHING)), False),
        ((allow(*MATCHING), deny(*NOT_MATCHING)), True),
        ((allow(*NOT_MATCHING), deny(*NOT_MATCHING)), False),
        ((allow(*NOT_MATCHING, name="a"), allow(*MATCHING, name="b")), True),
        ((deny(*MATCHING, dry_run=True),), True),
        ((allow(*NOT_MATCHING, dry_run=True),), True),
        ((allow(*NOT_MATCHING), allow(*MATCHING, name="trial", dry_run=True)), False),
    ],
)
def test_deny_comes_first_then_allow_and_dry_run_decides_nothing(
    policies: tuple[Authorization, ...], expected: bool
) -> None:
    assert allowed(*policies) is expected


def test_a_missing_policy_denies_whatever_else_allows() -> None:
    verdict = evaluate(PolicySet.of([allow(*MATCHING)], [PolicyKey("ns/late")]), TLS)
    assert isinstance(verdict, Denial)
    assert verdict.policy == "ns/late"
    assert "ns/late" in verdict.reason
    assert "not been delivered" in verdict.reason


def test_strict_mutual_tls_is_a_deny_of_those_without_a_principal() -> None:
    strict = deny(Rule((Clause((Match(not_principals=(StringMatch(MatchKind.PRESENCE),)),)),)))
    assert not allowed(strict, facts=PLAIN)
    assert allowed(strict, facts=TLS)


# --- reasons


def test_a_denial_names_the_policy_and_what_in_it_decided() -> None:
    rule = Rule((Clause((Match(namespaces=(exact("namespace"),), not_destination_ports=(9999,)),)),))
    verdict = evaluate(PolicySet.of([deny(Rule((Clause((NO,)),)), rule)]), TLS)
    assert isinstance(verdict, Denial)
    assert verdict.policy == "ns/d"
    assert verdict.reason == "policy ns/d denies: rule 2 (namespaces [namespace], not_destination_ports [9999])"


def test_a_denial_for_want_of_an_allow_says_what_would_have_been_needed() -> None:
    rule = Rule((Clause((Match(principals=(StringMatch(MatchKind.PREFIX, "td/ns/web/"),)),)),))
    verdict = evaluate(PolicySet.of([allow(rule)]), TLS)
    assert isinstance(verdict, Denial)
    assert "ns/p" in verdict.reason
    assert "rule 1 needs principals [td/ns/web/*]" in verdict.reason


def test_reasons_of_huge_policies_stay_short() -> None:
    many = Match(principals=tuple(exact(f"td/ns/x/sa/{number}") for number in range(1000)))
    verdict = evaluate(PolicySet.of([allow(Rule((Clause((many,)),)))]), TLS)
    assert isinstance(verdict, Denial)
    assert len(verdict.reason) < 400


def test_dry_runs_are_reported_with_the_verdict() -> None:
    verdict = evaluate(PolicySet.of([deny(*MATCHING, dry_run=True), allow(*MATCHING)]), TLS)
    assert isinstance(verdict, Permit)
    assert verdict.policy == "ns/p"
    assert len(verdict.dry_run) == 1
    assert "ns/d" in verdict.dry_run[0]
    assert "matches" in verdict.dry_run[0]


def test_a_permit_carries_the_facts_that_it_is_for() -> None:
    verdict = evaluate(PolicySet(), PLAIN)
    assert isinstance(verdict, Permit)
    assert verdict.facts == PLAIN
