"""A rule of an AuthorizationPolicy, compiled: which of its clauses fails for a request.

A request can often be read in more than one way: a path with an encoded slash, a header that comes twice. A rule that
allows must hold for every reading; one that denies holds when it does for any. `certain` says which is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from mesh.model.address import Cidr, Ip, canonical
from mesh.model.http_policy import Condition, Operation, PolicyRule, Source
from mesh.model.identity import SpiffeId
from mesh.policy.http.facts import RequestFacts
from mesh.policy.http.strings import Unbuildable, any_host, any_path, any_string

Values = Callable[[RequestFacts], Sequence[Any]]  # the readings of one attribute; none when the request has it not
Build = Callable[[Sequence[Any]], Callable[[Any], bool]]  # raises Unbuildable
Clause = Callable[[RequestFacts, bool], bool]


@dataclass(frozen=True, slots=True)
class Field:
    """One attribute of requests, and how values of a policy are compared with it."""

    values: Values
    build: Build
    of_http: bool = False  # what only a request has, and a connection that is not HTTP has not


def _identity(part: Callable[[SpiffeId], str]) -> Values:
    """Without an identity there is nothing to match: a positive field fails, a negative one holds."""

    def values(facts: RequestFacts) -> Sequence[str]:
        peer = facts.connection.peer
        return () if peer is None else (part(peer),)

    return values


def _any_block(texts: Sequence[str]) -> Callable[[Ip], bool]:
    blocks = [_block(text) for text in texts]
    return lambda ip: any(block.contains(ip) for block in blocks)


def _block(text: str) -> Cidr:
    try:
        network = ip_network(text, strict=False)
        ip, length = canonical(str(network.network_address)), network.prefixlen
    except ValueError:
        raise Unbuildable(f"{text!r} is neither an IP address nor a CIDR") from None
    mapped = network.version == 6 and ":" not in ip
    return Cidr(ip, max(0, length - 96) if mapped else length)


def _any_port(ports: Sequence[Any]) -> Callable[[int], bool]:
    try:
        wanted = frozenset(int(port) for port in ports)
    except ValueError:
        raise Unbuildable(f"{list(ports)!r} are not ports") from None
    return wanted.__contains__


def _method(facts: RequestFacts) -> Sequence[str]:
    return (facts.method,)


PRINCIPAL = Field(_identity(lambda peer: str(peer).removeprefix("spiffe://")), any_string)
NAMESPACE = Field(_identity(lambda peer: peer.namespace), any_string)
ACCOUNT = Field(_identity(lambda peer: f"{peer.namespace}/{peer.service_account}"), any_string)
TRUST_DOMAIN = Field(_identity(lambda peer: peer.trust_domain), any_string)
SOURCE_IP = Field(lambda facts: (facts.connection.source,), _any_block)
REMOTE_IP = Field(lambda facts: (facts.remote,), _any_block)
DESTINATION_IP = Field(lambda facts: (facts.connection.destination.ip,), _any_block)
DESTINATION_PORT = Field(lambda facts: (facts.connection.destination.port,), _any_port)
HOST = Field(lambda facts: (facts.host,), any_host, of_http=True)
METHOD = Field(_method, any_string, of_http=True)
PATH = Field(lambda facts: facts.paths, any_path, of_http=True)
SNI = Field(lambda facts: (facts.sni,) if facts.sni else (), any_string)

SOURCE_FIELDS = {
    "principals": PRINCIPAL,
    "namespaces": NAMESPACE,
    "service_accounts": ACCOUNT,
    "trust_domains": TRUST_DOMAIN,
    "ip_blocks": SOURCE_IP,
    "remote_ip_blocks": REMOTE_IP,
}
OPERATION_FIELDS = {"hosts": HOST, "ports": DESTINATION_PORT, "methods": METHOD, "paths": PATH}
CONDITION_FIELDS = {
    "source.ip": SOURCE_IP,
    "remote.ip": REMOTE_IP,
    "source.namespace": NAMESPACE,
    "source.principal": PRINCIPAL,
    "source.serviceAccount": ACCOUNT,
    "source.trustDomain": TRUST_DOMAIN,
    "destination.ip": DESTINATION_IP,
    "destination.port": DESTINATION_PORT,
    "connection.sni": SNI,
}
HEADER_KEY = "request.headers["


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """Clauses are ANDed. `error` is why one of them cannot be evaluated; the others are there."""

    clauses: tuple[tuple[str, Clause], ...]  # in words, and as a test
    words: str
    error: str = ""

    def failing(self, facts: RequestFacts, certain: bool) -> str | None:
        """The first clause that does not hold, in words."""
        for words, holds in self.clauses:
            if not holds(facts, certain):
                return words
        return None


def compile_rule(rule: PolicyRule) -> CompiledRule:
    """Never raises: what cannot be built is left out of the clauses, and said in `error`."""
    errors = [rule.error] if rule.error else []
    every = [
        _alternatives([_fields("source", source, SOURCE_FIELDS, errors) for source in rule.sources]),
        _alternatives([_fields("operation", to, OPERATION_FIELDS, errors) for to in rule.operations]),
        *(_condition(condition, errors) for condition in rule.conditions),
    ]
    clauses = tuple(clause for clause in every if clause is not None)
    words = _shortened(" and ".join(words for words, _ in clauses) or "matches everything")
    return CompiledRule(clauses, words, "; ".join(errors))


def _alternatives(groups: list[list[tuple[str, Clause]]]) -> tuple[str, Clause] | None:
    if not groups:
        return None
    tests = [_all([holds for _, holds in group]) for group in groups]
    words = " or ".join(", ".join(words for words, _ in group) or "anything" for group in groups)
    return _shortened(words), _any(tests)


def _all(tests: list[Clause]) -> Clause:
    return tests[0] if len(tests) == 1 else lambda facts, certain: all(test(facts, certain) for test in tests)


def _any(tests: list[Clause]) -> Clause:
    return tests[0] if len(tests) == 1 else lambda facts, certain: any(test(facts, certain) for test in tests)


def _fields(
    kind: str, group: Source | Operation, fields: dict[str, Field], errors: list[str]
) -> list[tuple[str, Clause]]:
    """All that is given must hold. A group in which nothing is given is an error, as Istio's validation has it."""
    found = []
    if group == type(group)():
        errors.append(f"an empty {kind} says nothing")
    for name, field in fields.items():
        for prefix, positive in (("", True), ("not_", False)):
            values = getattr(group, prefix + name)
            clause = _clause(prefix + name, field, values, positive, errors) if values else None
            if clause is not None:
                found.append(clause)
    return found


def _condition(condition: Condition, errors: list[str]) -> tuple[str, Clause] | None:
    field = _field_of_key(condition.key)
    if field is None:
        errors.append(f"condition {condition.key!r} is not supported")
        return None
    both = [
        _clause(condition.key, field, condition.values, True, errors) if condition.values else None,
        _clause(f"not {condition.key}", field, condition.not_values, False, errors) if condition.not_values else None,
    ]
    if not condition.values and not condition.not_values:
        errors.append(f"condition {condition.key!r} has neither values nor notValues")
    return _alternatives([[clause for clause in both if clause is not None]])


def _field_of_key(key: str) -> Field | None:
    if not key.startswith(HEADER_KEY) or not key.endswith("]"):
        return CONDITION_FIELDS.get(key)
    name = key[len(HEADER_KEY) : -1].lower()
    if not name or name.startswith(":"):
        return None
    if name == "host":
        return HOST
    return Field(lambda facts: facts.header(name), any_string, of_http=True)


def _clause(
    name: str, field: Field, values: Sequence[Any], positive: bool, errors: list[str]
) -> tuple[str, Clause] | None:
    try:
        test = field.build(values)
    except Unbuildable as error:
        errors.append(f"{name}: {error}")
        return None
    read = field.values

    def matches(facts: RequestFacts, certain: bool) -> bool:
        found = read(facts)
        if len(found) == 1:
            return test(found[0])
        return bool(found) and (all if certain else any)(value is not None and test(value) for value in found)

    def excludes(facts: RequestFacts, certain: bool) -> bool:
        return not matches(facts, not certain)

    words = _shortened(f"{name} [{', '.join(map(str, values))}]")
    holds = matches if positive else excludes
    return words, _of_request(holds) if field.of_http else holds


def _of_request(holds: Clause) -> Clause:
    """For a connection that is not HTTP nothing is known of such a field: it allows nothing, and denies with the rest
    of its rule, as Istio has it for TCP."""
    return lambda facts, certain: holds(facts, certain) if facts.is_http else not certain


def _shortened(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
