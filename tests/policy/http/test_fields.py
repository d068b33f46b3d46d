"""Every field of AuthorizationPolicy that needs no JWT: what it matches, alone in a rule."""

from __future__ import annotations

import pytest

from mesh.model.http_policy import Condition, Operation, PolicyRule, Source
from mesh.model.identity import SpiffeId
from mesh.policy.http.facts import RequestFacts
from tests.policy.http.make import WEB, allows, denies, facts, rule

OTHER = SpiffeId("other.local", "bank", "teller")
FORWARDED = (("x-forwarded-for", "8.8.8.8, 1.2.3.4"), ("x-forwarded-for", "9.9.9.9"))

FACTS: dict[str, RequestFacts] = {
    "web": facts(),
    "teller": facts(peer=OTHER, source="10.1.0.7"),
    "plain": facts(peer=None, source="fd00::7"),
}
# Field, values, and for whom it matches.
SOURCES: list[tuple[str, tuple[str, ...], str]] = [
    ("principals", ("cluster.local/ns/shop/sa/web",), "web"),
    ("principals", ("spiffe://cluster.local/ns/shop/sa/web",), ""),
    ("principals", ("*",), "web teller"),
    ("principals", ("*/sa/teller", "cluster.local/*"), "web teller"),
    ("principals", ("",), ""),
    ("namespaces", ("shop",), "web"),
    ("namespaces", ("sho*", "*ank"), "web teller"),
    ("service_accounts", ("shop/web",), "web"),
    ("service_accounts", ("bank/web",), ""),
    ("trust_domains", ("cluster.local",), "web"),
    ("trust_domains", ("*.local",), "web teller"),
    ("ip_blocks", ("10.0.0.0/16",), "web"),
    ("ip_blocks", ("10.0.0.1", "fd00::/8"), "web plain"),
    ("ip_blocks", ("::ffff:10.0.0.0/120",), "web"),
    ("ip_blocks", ("0.0.0.0/0",), "web teller"),
    ("ip_blocks", ("::/0",), "plain"),
    ("remote_ip_blocks", ("10.1.0.0/16",), "teller"),
]


@pytest.mark.parametrize(("field", "values", "matching"), SOURCES)
@pytest.mark.parametrize("who", FACTS)
def test_sources(field: str, values: tuple[str, ...], matching: str, who: str) -> None:
    matches = who in matching.split()
    request = FACTS[who]
    assert allows(rule(Source(**{field: values})), request) is matches
    assert denies(rule(Source(**{field: values})), request) is matches
    assert allows(rule(Source(**{"not_" + field: values})), request) is not matches
    assert denies(rule(Source(**{"not_" + field: values})), request) is not matches


OPERATIONS: list[tuple[str, tuple[object, ...], RequestFacts, bool]] = [
    ("hosts", ("catalog.shop",), facts(), True),
    ("hosts", ("Catalog.SHOP",), facts(authority="cAtalog.shop"), True),
    ("hosts", ("catalog.shop",), facts(authority="catalog.shop:8080"), True),
    ("hosts", ("catalog.shop",), facts(authority="catalog.shop."), True),
    ("hosts", ("catalog.shop",), facts(authority="catalog.shop.:8080"), True),
    ("hosts", ("catalog.shop:8080",), facts(authority="catalog.shop"), True),
    ("hosts", ("catalog.shop:80",), facts(authority="catalog.shop:8080"), False),
    ("hosts", ("catalog.shop:*",), facts(authority="catalog.shop:1"), True),
    ("hosts", ("*.shop",), facts(authority="catalog.shop:8080"), True),
    ("hosts", ("catalog.*",), facts(), True),
    ("hosts", ("*",), facts(authority="any:1"), True),
    ("hosts", ("*",), facts(authority=""), False),
    ("hosts", ("[fd00::1]",), facts(authority="[FD00::1]:80"), True),
    ("hosts", ("[fd00::1]:80",), facts(authority="[fd00::1]:80"), True),
    ("hosts", ("other",), facts(), False),
    ("ports", (8080,), facts(), True),
    ("ports", (80, 443), facts(), False),
    ("methods", ("GET", "HEAD"), facts("HEAD"), True),
    ("methods", ("GET",), facts("get"), False),
    ("methods", ("*",), facts("ANY"), True),
    ("methods", ("P*",), facts("PATCH"), True),
    ("paths", ("/a",), facts(path="/a"), True),
    ("paths", ("/a",), facts(path="/a/"), False),
    ("paths", ("/a",), facts(path="/A"), False),
    ("paths", ("/a*",), facts(path="/abc/d"), True),
    ("paths", ("/a/*",), facts(path="/a"), False),
    ("paths", ("*/info",), facts(path="/x/info"), True),
    ("paths", ("*",), facts(path="/"), True),
    ("paths", ("/caf\u00e9",), facts(path="/caf%C3%A9"), True),
    ("paths", ("/caf%c3%a9",), facts(path="/caf%C3%A9"), True),
    ("paths", ("/a b",), facts(path="/a%20b"), True),
    ("paths", ("/a%20b",), facts(path="/a%20b"), True),
    ("paths", ("/a!b",), facts(path="/a%21b"), True),
    ("paths", ("/a//b",), facts(path="/a/b"), True),
    ("paths", ("/a%2A",), facts(path="/abc"), False),
    ("paths", ("/a%2A",), facts(path="/a*"), True),
    ("paths", ("/foo/{*}",), facts(path="/foo/bar"), True),
    ("paths", ("/foo/{*}",), facts(path="/foo/bar/"), False),
    ("paths", ("/foo/{*}",), facts(path="/foo/"), False),
    ("paths", ("/foo/{*}/bar",), facts(path="/foo/x/bar"), True),
    ("paths", ("/foo/{*}/bar",), facts(path="/foo/x/y/bar"), False),
    ("paths", ("/{*}/baz/{**}",), facts(path="/x/baz/"), True),
    ("paths", ("/{*}/baz/{**}",), facts(path="/x/baz/y/z"), True),
    ("paths", ("/{*}/baz/{**}",), facts(path="/x/baz"), False),
    ("paths", ("/foo/{**}/bar",), facts(path="/foo/x/y/bar"), True),
    ("paths", ("/foo/{**}/bar",), facts(path="/foo/bar"), False),
    ("paths", ("/foo/{**}",), facts(path="/foobar/x"), False),
    ("paths", ("/foo%2Fbar/{*}",), facts(path="/foo/x"), False),
]


@pytest.mark.parametrize(("field", "values", "request_", "matches"), OPERATIONS)
def test_operations(field: str, values: tuple[object, ...], request_: RequestFacts, matches: bool) -> None:
    assert allows(rule(to=Operation(**{field: values})), request_) is matches
    assert denies(rule(to=Operation(**{field: values})), request_) is matches
    assert allows(rule(to=Operation(**{"not_" + field: values})), request_) is not matches
    assert denies(rule(to=Operation(**{"not_" + field: values})), request_) is not matches


CONDITIONS: list[tuple[str, tuple[str, ...], RequestFacts, bool]] = [
    ("request.headers[X-Version]", ("v1",), facts(headers=(("x-version", "v1"),)), True),
    ("request.headers[x-version]", ("v1",), facts(headers=(("x-version", "V1"),)), False),
    ("request.headers[x-version]", ("v*",), facts(headers=(("x-version", "v7"),)), True),
    ("request.headers[x-version]", ("*",), facts(headers=(("x-version", ""),)), False),
    ("request.headers[x-version]", ("*",), facts(), False),
    ("request.headers[Host]", ("catalog.shop",), facts(), True),
    ("source.ip", ("10.0.0.0/8",), facts(), True),
    ("source.namespace", ("shop",), facts(), True),
    ("source.principal", ("cluster.local/ns/shop/sa/web",), facts(), True),
    ("source.principal", ("*",), facts(peer=None), False),
    ("source.serviceAccount", ("shop/web",), facts(), True),
    ("source.trustDomain", ("cluster.local",), facts(), True),
    ("destination.ip", ("10.0.0.2",), facts(), True),
    ("destination.ip", ("10.0.0.3/32",), facts(), False),
    ("destination.port", ("8080", "80"), facts(), True),
    ("connection.sni", ("www.example.com",), facts(sni="www.example.com"), True),
    ("connection.sni", ("*.example.com",), facts(sni="www.example.com"), True),
    ("connection.sni", ("*",), facts(), False),
    ("remote.ip", ("10.0.0.1",), facts(headers=FORWARDED), True),
    ("remote.ip", ("9.9.9.9",), facts(headers=FORWARDED, trusted_hops=1), True),
    ("remote.ip", ("1.2.3.4",), facts(headers=FORWARDED, trusted_hops=2), True),
    ("remote.ip", ("8.8.8.8",), facts(headers=FORWARDED, trusted_hops=3), True),
    ("remote.ip", ("10.0.0.1",), facts(headers=FORWARDED, trusted_hops=4), True),
    ("remote.ip", ("10.0.0.1",), facts(headers=(("x-forwarded-for", "not an address"),), trusted_hops=1), True),
]


@pytest.mark.parametrize(("key", "values", "request_", "matches"), CONDITIONS)
def test_conditions(key: str, values: tuple[str, ...], request_: RequestFacts, matches: bool) -> None:
    assert allows(rule(when=Condition(key, values)), request_) is matches
    assert denies(rule(when=Condition(key, values)), request_) is matches
    assert allows(rule(when=Condition(key, (), values)), request_) is not matches
    assert denies(rule(when=Condition(key, (), values)), request_) is not matches


HTTP_ONLY = [
    rule(to=Operation(paths=("*",))),
    rule(to=Operation(not_paths=("/x",))),
    rule(to=Operation(methods=("*",))),
    rule(to=Operation(not_methods=("POST",))),
    rule(to=Operation(hosts=("*",))),
    rule(to=Operation(not_hosts=("x",))),
    rule(when=Condition("request.headers[x]", ("*",))),
    rule(when=Condition("request.headers[x]", (), ("y",))),
]


@pytest.mark.parametrize("one", HTTP_ONLY)
def test_a_connection_that_is_not_http_is_not_allowed_by_what_only_requests_have(one: PolicyRule) -> None:
    assert not allows(one, facts(method=""))
    assert denies(one, facts(method=""))
    elsewhere = PolicyRule((Source(namespaces=("bank",)),), one.operations, one.conditions)
    assert not denies(elsewhere, facts(method="")), "the rest of the rule still counts"


def test_fields_are_anded_and_values_ored() -> None:
    both = rule(Source(namespaces=("shop", "bank"), not_service_accounts=("bank/teller",)), Operation(methods=("GET",)))
    assert allows(both, facts())
    assert not allows(both, facts("POST"))
    assert not allows(both, facts(peer=OTHER))
    assert allows(both, facts(peer=SpiffeId("cluster.local", "bank", "web")))
    assert WEB.namespace == "shop"
