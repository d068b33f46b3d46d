"""AuthorizationPolicies as ztunnel gets them: the same meaning, or a tighter one and a sentence about it."""

from __future__ import annotations

from typing import Any

import pytest

from controller.store.interface import Key
from mesh.model.address import Cidr, Ip
from mesh.model.policy import (
    Action,
    Authorization,
    Clause,
    Match,
    MatchKind,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
)
from tests.compile.objects import Mesh, Object, pod

EVERYTHING = (Rule(),)
WEB = {"matchLabels": {"app": "web"}}
BY_SELECTOR, BY_NAMESPACE, GLOBAL = PolicyScope.WORKLOAD_SELECTOR, PolicyScope.NAMESPACE, PolicyScope.GLOBAL


def policy(name: str = "p", namespace: str = "shop", annotations: Object | None = None, **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, "annotations": annotations or {}}
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}


def compiled(obj: Object) -> tuple[Authorization | None, list[str]]:
    mesh = Mesh()
    update = mesh.apply(obj).update
    return (update.policies[0] if update.policies else None), mesh.sentences()


def rules(action: str, *written: Any) -> tuple[tuple[Rule, ...], list[str]]:
    found, sentences = compiled(policy(action=action, rules=list(written)))
    assert found is not None
    assert found.action is Action[action]
    return found.rules, sentences


def exact(text: str) -> StringMatch:
    return StringMatch(MatchKind.EXACT, text)


def prefix(text: str) -> StringMatch:
    return StringMatch(MatchKind.PREFIX, text)


def one(**fields: Any) -> tuple[Rule, ...]:
    return (Rule((Clause((Match(**fields),)),)),)


def source(*sources: Object) -> Object:
    return {"from": [{"source": each} for each in sources]}


def operation(**fields: Any) -> Object:
    return {"to": [{"operation": fields}]}


def when(key: str, **fields: Any) -> Object:
    return {"when": [{"key": key, **fields}]}


BLOCKS = (Cidr(Ip("10.0.0.0"), 8), Cidr(Ip("fd00::1"), 128))
ACCOUNTS = (ServiceAccountMatch("shop", "web"), ServiceAccountMatch("other", "web"))
FIELDS = {
    "principals": (
        source({"principals": ["td/ns/a/sa/b", "td/*"]}),
        {"principals": (exact("td/ns/a/sa/b"), prefix("td/"))},
    ),
    "notPrincipals": (source({"notPrincipals": ["*"]}), {"not_principals": (StringMatch(MatchKind.PRESENCE),)}),
    "namespaces": (source({"namespaces": ["*b"]}), {"namespaces": (StringMatch(MatchKind.SUFFIX, "b"),)}),
    "notNamespaces": (source({"notNamespaces": ["b"]}), {"not_namespaces": (exact("b"),)}),
    "serviceAccounts": (source({"serviceAccounts": ["web", "other/web"]}), {"service_accounts": ACCOUNTS}),
    "notServiceAccounts": (source({"notServiceAccounts": ["web", "other/web"]}), {"not_service_accounts": ACCOUNTS}),
    "ipBlocks": (source({"ipBlocks": ["10.1.2.3/8", "fd00::1"]}), {"source_ips": BLOCKS}),
    "notIpBlocks": (source({"notIpBlocks": ["10.1.2.3/8", "fd00::1"]}), {"not_source_ips": BLOCKS}),
    "trustDomains": (source({"trustDomains": ["td", "x*"]}), {"principals": (prefix("td/"), prefix("x"))}),
    "notTrustDomains": (
        source({"notTrustDomains": ["td"], "notPrincipals": ["a"]}),
        {"not_principals": (exact("a"), prefix("td/"))},
    ),
    "ports": (operation(ports=["80", "443"]), {"destination_ports": (80, 443)}),
    "notPorts": (operation(notPorts=["80"]), {"not_destination_ports": (80,)}),
    "source.ip": (when("source.ip", values=["10.1.2.3/8", "fd00::1"]), {"source_ips": BLOCKS}),
    "source.namespace": (when("source.namespace", notValues=["b"]), {"not_namespaces": (exact("b"),)}),
    "source.principal": (
        when("source.principal", values=["a"], notValues=["b"]),
        {"principals": (exact("a"),), "not_principals": (exact("b"),)},
    ),
    "source.serviceAccount": (
        when("source.serviceAccount", values=["web", "other/web"]),
        {"service_accounts": ACCOUNTS},
    ),
    "source.trustDomain": (when("source.trustDomain", values=["td"]), {"principals": (prefix("td/"),)}),
    "destination.ip": (when("destination.ip", values=["10.0.0.0/8", "fd00::1"]), {"destination_ips": BLOCKS}),
    "destination.port": (when("destination.port", notValues=["80"]), {"not_destination_ports": (80,)}),
}


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize(("written", "fields"), FIELDS.values(), ids=FIELDS)
def test_each_field_that_ztunnel_can_check(action: str, written: Object, fields: dict[str, Any]) -> None:
    assert rules(action, written) == (one(**fields), [])


def test_sources_are_ored_and_the_three_parts_anded() -> None:
    written = (
        source({"namespaces": ["a"]}, {"namespaces": ["b"]})
        | operation(ports=["80"])
        | when("source.ip", values=["10.0.0.1"])
    )
    (rule,), _ = rules("ALLOW", written)
    either, port, ip = rule.clauses
    assert either.matches == (Match(namespaces=(exact("a"),)), Match(namespaces=(exact("b"),)))
    assert port.matches == (Match(destination_ports=(80,)),)
    assert ip.matches == (Match(source_ips=(Cidr(Ip("10.0.0.1"), 32),)),)


def test_principals_and_trust_domains_of_one_source_must_both_hold() -> None:
    both = {"principals": ["*/sa/b"], "trustDomains": ["td"]}
    found, _ = rules("ALLOW", source({"namespaces": ["a"]}, both))
    suffix = StringMatch(MatchKind.SUFFIX, "/sa/b")
    assert found == (
        *one(namespaces=(exact("a"),)),
        Rule((Clause((Match(principals=(suffix,)),)), Clause((Match(principals=(prefix("td/"),)),)))),
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, (Action.ALLOW, ())),
        ({"action": "ALLOW", "rules": [{}]}, (Action.ALLOW, EVERYTHING)),
        ({"action": "DENY"}, (Action.DENY, ())),
        ({"action": "DENY", "rules": [{}]}, (Action.DENY, EVERYTHING)),
    ],
)
def test_policies_without_conditions(spec: Object, expected: Any) -> None:
    found, sentences = compiled(policy(**spec))
    assert found is not None
    assert ((found.action, found.rules), sentences) == (expected, [])


@pytest.mark.parametrize(
    ("namespace", "selector", "scope"),
    [
        ("shop", None, BY_NAMESPACE),
        ("shop", {}, BY_NAMESPACE),
        ("shop", {"matchLabels": {}}, BY_NAMESPACE),
        ("shop", WEB, BY_SELECTOR),
        ("istio-system", None, GLOBAL),
        ("ambit-system", None, GLOBAL),
        ("istio-system", WEB, BY_SELECTOR),
    ],
)
def test_scopes(namespace: str, selector: Object | None, scope: PolicyScope) -> None:
    spec: Any = {"selector": selector} if selector is not None else {}
    found, _ = compiled(policy(namespace=namespace, **spec))
    assert found is not None
    assert found.scope is scope


# --- what ztunnel cannot check, and what cannot be read

HTTP = {
    "methods": (operation(methods=["GET"]), "to[0].operation.methods"),
    "notPaths": (operation(notPaths=["/a"]), "to[0].operation.notPaths"),
    "hosts": (operation(hosts=["a"]), "to[0].operation.hosts"),
    "requestPrincipals": (source({"requestPrincipals": ["*"]}), "from[0].source.requestPrincipals"),
    "remoteIpBlocks": (source({"notRemoteIpBlocks": ["10.0.0.0/8"]}), "from[0].source.notRemoteIpBlocks"),
    "header": (when("request.headers[x-a]", values=["b"]), "when[0].key"),
    "claims": (when("request.auth.claims[iss]", values=["b"]), "when[0].key"),
    "sni": (when("connection.sni", values=["b"]), "when[0].key"),
}
UNREADABLE = {
    "block": (source({"ipBlocks": ["10.0.0.1", "10.0.0.0/33"]}), "from[0].source.ipBlocks[1]"),
    "negated block": (source({"notIpBlocks": ["web"]}), "from[0].source.notIpBlocks[0]"),
    "port": (operation(ports=["80", "http"]), "to[0].operation.ports[1]"),
    "port of a condition": (when("destination.port", values=["0"]), "when[0].values[0]"),
    "inner star": (source({"principals": ["a*b"]}), "from[0].source.principals[0]"),
    "scheme": (source({"principals": ["spiffe://td/ns/a/sa/b"]}), "from[0].source.principals[0]"),
    "open trust domain": (source({"trustDomains": ["*.local"]}), "from[0].source.trustDomains[0]"),
    "account": (source({"serviceAccounts": ["a/b/c"]}), "from[0].source.serviceAccounts[0]"),
    "empty source": (source({}), "from[0].source"),
    "no values": (when("source.ip"), "when[0]"),
    "unknown key": (when("source.colour", values=["red"]), "when[0].key"),
    "unknown field": ({"form": []}, ""),
    "no rule": (7, ""),
}


@pytest.mark.parametrize(("written", "place"), [*HTTP.values(), *UNREADABLE.values()], ids=[*HTTP, *UNREADABLE])
def test_an_allow_rule_that_cannot_be_checked_allows_nothing(written: Any, place: str) -> None:
    found, sentences = rules("ALLOW", written, source({"namespaces": ["a"]}))
    assert found == one(namespaces=(exact("a"),)), "the other rule holds"
    (sentence,) = sentences
    assert sentence.startswith(f"AuthorizationPolicy shop/p: spec.rules[0]{place and '.'}{place}: ")
    assert sentence.endswith("this rule allows nothing")


@pytest.mark.parametrize(("written", "place"), [*HTTP.values(), *UNREADABLE.values()], ids=[*HTTP, *UNREADABLE])
def test_a_deny_rule_denies_without_what_cannot_be_checked(written: Any, place: str) -> None:
    found, sentences = rules("DENY", written)
    assert found == EVERYTHING
    assert len(sentences) == 1


def test_the_rest_of_a_deny_rule_still_limits_it() -> None:
    found, _ = rules(
        "DENY", source({"namespaces": ["a"], "ipBlocks": ["bad"]}) | operation(methods=["GET"], ports=["80"])
    )
    assert found == (Rule((Clause((Match(namespaces=(exact("a"),)),)), Clause((Match(destination_ports=(80,)),)))),)


def test_one_source_that_cannot_be_checked_makes_a_deny_rule_about_all_sources() -> None:
    assert rules("DENY", source({"namespaces": ["a"]}, {"requestPrincipals": ["*"]}))[0] == EVERYTHING


@pytest.mark.parametrize(
    ("written", "reason"), [(HTTP["methods"][0], "UnsupportedValue"), (UNREADABLE["block"][0], "PartiallyInvalid")]
)
def test_reasons(written: Object, reason: str) -> None:
    mesh = Mesh(policy(rules=[written]))
    assert [each.reason for each in mesh.compiler.problems()] == [reason]


@pytest.mark.parametrize("action", ["AUDIT", "CUSTOM"])
def test_actions_that_ztunnel_does_not_know(action: str) -> None:
    mesh = Mesh(policy(action=action, rules=[{}], selector=WEB), pod("web-1", "10.1.0.1", labels={"app": "web"}))
    assert [each.reason for each in mesh.compiler.problems()] == ["UnsupportedValue"]
    assert mesh.pod().authorization_policies == ()
    assert len(mesh.compiler.everything().policies) == 1, "only the mesh's own"


@pytest.mark.parametrize(
    ("spec", "scope"),
    [
        ({"rules": "all"}, BY_NAMESPACE),
        ({"rules": [{}], "action": "PERMIT"}, BY_NAMESPACE),
        ({"rules": [{}], "unknown": 1}, BY_NAMESPACE),
        ({"selector": WEB, "rules": "all"}, BY_SELECTOR),
        ({"selector": {"matchLabels": {"app": 7}}}, BY_NAMESPACE),
        ({"selector": WEB, "targetRefs": [{"kind": "Service", "name": "web"}]}, BY_SELECTOR),
    ],
)
def test_a_policy_that_cannot_be_read_denies_all_that_it_selects(spec: Object, scope: PolicyScope) -> None:
    found, sentences = compiled(policy(**spec))
    assert found is not None
    assert (found.action, found.scope, found.rules) == (Action.DENY, scope, EVERYTHING)
    assert len(sentences) == 1


def test_policies_of_waypoints_are_none_of_ztunnels_business() -> None:
    assert compiled(policy(targetRefs=[{"kind": "Service", "name": "web"}], rules=[{}])) == (None, [])


@pytest.mark.parametrize(
    ("text", "dry_run", "sentences"), [("true", True, 0), ("T", True, 0), ("false", False, 0), ("yes", False, 1)]
)
def test_dry_run(text: str, dry_run: bool, sentences: int) -> None:
    found, said = compiled(policy(annotations={"istio.io/dry-run": text}, action="DENY"))
    assert found is not None
    assert (found.dry_run, len(said)) == (dry_run, sentences)


# --- who names a policy


def references(mesh: Mesh, name: str = "web-1") -> tuple[str, ...]:
    return mesh.pod(name).authorization_policies


def test_selected_pods_name_the_policy_and_stop_when_it_goes() -> None:
    mesh = Mesh(pod("web-1", "10.1.0.1", labels={"app": "web"}), pod("db-1", "10.1.0.2", labels={"app": "db"}))
    by_selector = policy("a", selector=WEB)
    changes = mesh.apply(
        by_selector, policy("b"), policy("c", "other", selector=WEB), policy("d", "istio-system", selector=WEB)
    )
    assert references(mesh) == ("istio-system/d", "shop/a")
    assert references(mesh, "db-1") == ()
    assert len(changes.update.workloads) == 1, "pods that are not selected are left alone"
    changes = mesh.delete(by_selector)
    assert references(mesh) == ("istio-system/d",)
    assert changes.update.removed_policies == ("shop/a",)


def test_labels_of_pods_and_selectors_may_change() -> None:
    mesh = Mesh(policy("a", selector=WEB), pod("web-1", "10.1.0.1", labels={"app": "db"}))
    assert references(mesh) == ()
    mesh.apply(pod("web-1", "10.1.0.1", labels={"app": "web", "more": "x"}))
    assert references(mesh) == ("shop/a",)
    mesh.apply(policy("a", selector={"matchLabels": {"app": "db"}}))
    assert references(mesh) == ()
    mesh.apply(policy("a"))
    assert references(mesh) == (), "it holds for the whole namespace now"


def test_a_status_changes_nothing() -> None:
    mesh = Mesh(policy("a", selector=WEB), pod("web-1", "10.1.0.1", labels={"app": "web"}))
    changes = mesh.apply({**policy("a", selector=WEB), "status": {"conditions": []}})
    assert changes.examined == (Key("AuthorizationPolicy", "shop", "a"),)
