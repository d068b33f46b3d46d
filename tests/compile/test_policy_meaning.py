"""Compiled and evaluated policies against a naive reading of Istio's own words, over arbitrary policies."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import product
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.policy import PolicySet
from mesh.policy.evaluate import Permit, evaluate
from mesh.policy.match import ConnectionFacts
from tests.compile.objects import Mesh
from tests.compile.test_policies import policy

Object = dict[str, Any]

DOMAINS, NAMESPACES, ACCOUNTS = ("td", "td2"), ("shop", "bank"), ("web", "web2")
PRINCIPALS = ("td/ns/shop/sa/web", "td/*", "*/sa/web", "*", "td2/ns/bank/sa/web2", "td/ns/b*")
BLOCKS = ("10.0.0.1", "10.0.0.0/30", "0.0.0.0/0", "fd00::/16", "10.0.0.9")
PORTS = ("80", "8080")


def some(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2)


def fields(**choices: tuple[str, ...]) -> st.SearchStrategy[Object]:
    twins = {f"not{name[0].upper()}{name[1:]}": values for name, values in choices.items()}
    optional = {name: some(values) for name, values in (choices | twins).items()}
    return st.fixed_dictionaries({}, optional=optional).filter(bool)


SOURCES = fields(
    principals=PRINCIPALS,
    namespaces=(*NAMESPACES, "*k", "sh*"),
    serviceAccounts=("web", "bank/web2"),
    ipBlocks=BLOCKS,
    trustDomains=(*DOMAINS, "*", "t*"),
)
KEYS = {
    "source.principal": PRINCIPALS,
    "source.namespace": NAMESPACES,
    "source.serviceAccount": ("web", "bank/web2"),
    "source.trustDomain": DOMAINS,
    "source.ip": BLOCKS,
    "destination.ip": BLOCKS,
    "destination.port": PORTS,
}


@st.composite
def conditions(draw: st.DrawFn) -> Object:
    key = draw(st.sampled_from(sorted(KEYS)))
    return {"key": key, **draw(fields(values=KEYS[key]))}


RULES = st.fixed_dictionaries(
    {},
    optional={
        "from": st.lists(st.builds(lambda each: {"source": each}, SOURCES), min_size=1, max_size=2),
        "to": st.lists(st.builds(lambda each: {"operation": each}, fields(ports=PORTS)), min_size=1, max_size=2),
        "when": st.lists(conditions(), min_size=1, max_size=2),
    },
)
POLICIES = st.fixed_dictionaries(
    {"action": st.sampled_from(["ALLOW", "DENY"]), "rules": st.lists(RULES, max_size=2)},
)
PEERS = (None, *(SpiffeId(*parts) for parts in product(DOMAINS, NAMESPACES, ACCOUNTS)))
CONNECTIONS = [
    ConnectionFacts(Ip(source), SocketAddress(Ip(destination), port), peer)
    for source, destination, port, peer in product(
        ("10.0.0.1", "10.0.0.9", "fd00::1"), ("10.0.0.1", "10.0.0.2"), (80, 8080), PEERS
    )
]


# --- the naive reading


def allowed(policies: list[Object], facts: ConnectionFacts) -> bool:
    def matching(action: str) -> list[bool]:
        return [any(rule_holds(rule, facts) for rule in each["rules"]) for each in policies if each["action"] == action]

    if any(matching("DENY")):
        return False
    allowing = matching("ALLOW")
    return not allowing or any(allowing)


def rule_holds(rule: Object, facts: ConnectionFacts) -> bool:
    sources = [fields_hold(each["source"], facts) for each in rule.get("from", [])]
    operations = [fields_hold(each["operation"], facts) for each in rule.get("to", [])]
    return (
        (not sources or any(sources))
        and (not operations or any(operations))
        and all(condition_holds(each, facts) for each in rule.get("when", []))
    )


def condition_holds(when: Object, facts: ConnectionFacts) -> bool:
    test = ATTRIBUTES[when["key"]]
    wanted, unwanted = when.get("values", []), when.get("notValues", [])
    return (not wanted or any(test(each, facts) for each in wanted)) and not any(test(each, facts) for each in unwanted)


def fields_hold(part: Object, facts: ConnectionFacts) -> bool:
    for name, values in part.items():
        plain = name.removeprefix("not")
        found = any(ATTRIBUTES[plain[0].lower() + plain[1:]](value, facts) for value in values)
        if found is name.startswith("not"):
            return False
    return True


def text_matches(pattern: str, text: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    return text == pattern


def principal(pattern: str, facts: ConnectionFacts) -> bool:
    return facts.peer is not None and text_matches(pattern, str(facts.peer).removeprefix("spiffe://"))


def namespace(pattern: str, facts: ConnectionFacts) -> bool:
    return facts.peer is not None and text_matches(pattern, facts.peer.namespace)


def account(name: str, facts: ConnectionFacts) -> bool:
    wanted = name if "/" in name else f"shop/{name}"
    return facts.peer is not None and f"{facts.peer.namespace}/{facts.peer.service_account}" == wanted


def trust_domain(pattern: str, facts: ConnectionFacts) -> bool:
    return facts.peer is not None and text_matches(pattern, facts.peer.trust_domain)


def source_ip(block: str, facts: ConnectionFacts) -> bool:
    return ip_address(facts.source) in ip_network(block)


def destination_ip(block: str, facts: ConnectionFacts) -> bool:
    return ip_address(facts.destination.ip) in ip_network(block)


def destination_port(port: str, facts: ConnectionFacts) -> bool:
    return str(facts.destination.port) == port


ATTRIBUTES = {
    "principals": principal,
    "namespaces": namespace,
    "serviceAccounts": account,
    "trustDomains": trust_domain,
    "ipBlocks": source_ip,
    "ports": destination_port,
    "source.principal": principal,
    "source.namespace": namespace,
    "source.serviceAccount": account,
    "source.trustDomain": trust_domain,
    "source.ip": source_ip,
    "destination.ip": destination_ip,
    "destination.port": destination_port,
}


@settings(max_examples=400)
@given(st.lists(POLICIES, min_size=1, max_size=2))
def test_compiled_policies_mean_what_is_written(specs: list[Object]) -> None:
    mesh = Mesh(*(policy(f"p{number}", **spec) for number, spec in enumerate(specs)))
    assert not mesh.sentences()
    own = mesh.compiler.index.security.strict.key
    policies = PolicySet.of(each for each in mesh.compiler.everything().policies if each.key != own)
    for facts in CONNECTIONS:
        assert isinstance(evaluate(policies, facts), Permit) is allowed(specs, facts), facts
