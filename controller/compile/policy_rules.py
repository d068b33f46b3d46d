"""One rule of an AuthorizationPolicy as ztunnel evaluates it: clauses ANDed, matches of a clause ORed. Pure.

What ztunnel cannot check makes a rule tighter, never looser: an ALLOW rule is left out, a DENY rule denies without the
field (istiod: serviceregistry/ambient/authorization.go). So the same holds for values that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import msgspec

from controller.store import policy_values as values
from controller.store.policy_shapes import AuthorizationRule, Operation, Source, When
from mesh.model.policy import Action, Clause, Match, Rule, StringMatch

UNSUPPORTED = "UnsupportedValue"  # Istio's reasons of the condition ZtunnelAccepted
PARTIALLY_INVALID = "PartiallyInvalid"


@dataclass(frozen=True, slots=True)
class Fault:
    """A part of a rule that is not enforced as written."""

    field: str
    sentence: str
    reason: str


# From Istio's names to ours. Fields of `Source` and `Operation` that are not here need HTTP or a token.
Build = Callable[[str, str], Any]  # (value, namespace of the policy)
_BUILD: dict[str, Build] = {
    "principals": lambda text, _: values.principal(text),
    "namespaces": lambda text, _: values.string_match(text),
    "service_accounts": values.service_account,
    "trust_domains": lambda text, _: values.trust_domain(text),
    "source_ips": lambda text, _: values.block(text),
    "destination_ips": lambda text, _: values.block(text),
    "destination_ports": lambda text, _: values.port(text),
}
_FIELDS = {
    "principals": "principals",
    "namespaces": "namespaces",
    "service_accounts": "service_accounts",
    "trust_domains": "trust_domains",
    "ip_blocks": "source_ips",
    "ports": "destination_ports",
}
_KEYS = {
    "source.principal": "principals",
    "source.namespace": "namespaces",
    "source.serviceAccount": "service_accounts",
    "source.trustDomain": "trust_domains",
    "source.ip": "source_ips",
    "destination.ip": "destination_ips",
    "destination.port": "destination_ports",
}
_HTTP_KEYS = ("request.", "remote.ip", "connection.sni", "experimental.")
_NOT = "not_"
_ANYTHING = Match()


@dataclass(frozen=True, slots=True)
class _Part:
    """A source or an operation. The trust domains are patterns of the principal, to be matched besides `match`."""

    match: Match
    trust_domains: tuple[StringMatch, ...] = ()

    def alone(self) -> Match | None:
        """As one match, if that can say it: a match has one list of principals."""
        if not self.trust_domains:
            return self.match
        return None if self.match.principals else replace(self.match, principals=self.trust_domains)


def build_rule(raw: Any, place: str, action: Action, namespace: str) -> tuple[tuple[Rule, ...], tuple[Fault, ...]]:
    """The rules (ORed) that `raw`, the rule at `place` of a policy in `namespace`, stands for, and what is wrong."""
    builder = _Builder(place, action, namespace)
    try:
        rule = msgspec.convert(raw, AuthorizationRule)
    except msgspec.ValidationError as error:
        builder.fault("", f"it cannot be read ({error})", PARTIALLY_INVALID)
        rule = AuthorizationRule()
    rules = tuple(builder.rules(rule))
    return (() if builder.faults and action is Action.ALLOW else rules), tuple(builder.faults)


class _Builder:
    """Collects the faults of one rule."""

    def __init__(self, place: str, action: Action, namespace: str) -> None:
        self._place = place
        self._namespace = namespace
        self._effect = (
            "this rule allows nothing" if action is Action.ALLOW else "this rule denies whatever that field says"
        )
        self.faults: list[Fault] = []

    def fault(self, field: str, sentence: str, reason: str) -> None:
        place = f"{self._place}.{field}" if field else self._place
        self.faults.append(Fault(place, f"{sentence}; {self._effect}", reason))

    def rules(self, rule: AuthorizationRule) -> Iterator[Rule]:
        sources = [self._part(each.source, f"from[{number}].source") for number, each in enumerate(rule.from_)]
        operations = [self._part(each.operation, f"to[{number}].operation") for number, each in enumerate(rule.to)]
        conditions = [self._when(each, f"when[{number}]") for number, each in enumerate(rule.when)]
        rest = (*_clause(part.match for part in operations), *(each for part in conditions for each in _both(part)))
        for first in _alternatives(sources):
            yield Rule((*first, *rest))

    def _part(self, part: Source | Operation, place: str) -> _Part:
        found: dict[str, tuple[Any, ...]] = {}
        given = [(name, texts) for name in part.__struct_fields__ if (texts := getattr(part, name))]
        if not given:
            self.fault(place, "it names nothing", PARTIALLY_INVALID)
        for name, texts in given:
            field, written = name.removeprefix(_NOT), camel(name)
            if field in _FIELDS:
                _put(
                    found,
                    _FIELDS[field],
                    name.startswith(_NOT),
                    self._values(_FIELDS[field], texts, f"{place}.{written}"),
                )
            else:
                self.fault(f"{place}.{written}", f"ztunnel cannot check {written}, a waypoint can", UNSUPPORTED)
        return _part(found)

    def _when(self, when: When, place: str) -> _Part:
        field = _KEYS.get(when.key)
        if field is None:
            http = when.key.startswith(_HTTP_KEYS)
            words = f"ztunnel cannot check {when.key!r}, a waypoint can" if http else f"there is no key {when.key!r}"
            self.fault(f"{place}.key", words, UNSUPPORTED if http else PARTIALLY_INVALID)
            return _part({})
        if not when.values and not when.not_values:
            self.fault(place, "values and notValues are both missing", PARTIALLY_INVALID)
        found: dict[str, tuple[Any, ...]] = {}
        _put(found, field, False, self._values(field, when.values, f"{place}.values"))
        _put(found, field, True, self._values(field, when.not_values, f"{place}.notValues"))
        return _part(found)

    def _values(self, field: str, texts: Iterable[str], place: str) -> tuple[Any, ...]:
        """None of them if one cannot be read: a shorter list would deny less."""
        found = []
        for number, text in enumerate(texts):
            try:
                found.append(_BUILD[field](text, self._namespace))
            except ValueError as error:
                self.fault(f"{place}[{number}]", str(error), PARTIALLY_INVALID)
                return ()
        return tuple(found)


def _put(found: dict[str, tuple[Any, ...]], field: str, negated: bool, texts: tuple[Any, ...]) -> None:
    """Trust domains that must not match are principals that must not match."""
    name = ("principals" if field == "trust_domains" else field) if negated else field
    found[_NOT + name if negated else name] = (*found.get(_NOT + name if negated else name, ()), *texts)


def _part(found: dict[str, tuple[Any, ...]]) -> _Part:
    trust_domains = found.pop("trust_domains", ())
    return _Part(Match(**found), trust_domains)


def _clause(matches: Iterable[Match]) -> tuple[Clause, ...]:
    """None where nothing is asked for, or where one alternative is anything."""
    each = tuple(matches)
    return (Clause(each),) if each and _ANYTHING not in each else ()


def _both(part: _Part) -> tuple[Clause, ...]:
    """A part on its own."""
    alone = part.alone()
    if alone is not None:
        return _clause([alone])
    return (Clause((part.match,)), Clause((Match(principals=part.trust_domains),)))


def _alternatives(sources: list[_Part]) -> Iterator[tuple[Clause, ...]]:
    """Sources are ORed: in one clause, or as rules of their own where one needs two clauses."""
    simple = [alone for part in sources if (alone := part.alone()) is not None]
    if simple or not sources:
        yield _clause(simple)
    for part in sources:
        if part.alone() is None:
            yield _both(part)


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


assert {field.name for field in fields(Match)} >= {name for name in _BUILD if name != "trust_domains"}
