"""The order of policies, what decides, and that it is closed where something is missing or ambiguous."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.model.http_policy import Condition, HttpAction, HttpPolicy, Operation, PolicyRule, Source
from mesh.policy.evaluate import Denial, Permit
from mesh.policy.http.facts import RequestFacts
from mesh.policy.http.path import canonical_path, readings
from tests.policy.http.make import allowed, allows, denies, facts, policy, rule, verdict

GET, ADMIN = rule(to=Operation(methods=("GET",))), rule(to=Operation(paths=("/admin", "/admin/*")))
EVERYTHING = PolicyRule()
DENY, AUDIT = HttpAction.DENY, HttpAction.AUDIT

# --- the order


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ((), True),
        ((policy(),), False),
        ((policy(EVERYTHING),), True),
        ((policy(GET),), True),
        ((policy(ADMIN),), False),
        ((policy(ADMIN, GET),), True),
        ((policy(ADMIN, name="a"), policy(GET, name="b")), True),
        ((policy(action=DENY),), True),
        ((policy(EVERYTHING, action=DENY),), False),
        ((policy(ADMIN, action=DENY),), True),
        ((policy(GET, action=DENY, name="d"), policy(EVERYTHING)), False),
        ((policy(ADMIN, action=DENY, name="d"), policy(GET)), True),
        ((policy(EVERYTHING, action=AUDIT),), True),
        ((policy(EVERYTHING, action=AUDIT, name="d"), policy()), False),
        ((policy(EVERYTHING, action=DENY, dry_run=True),), True),
        ((policy(dry_run=True),), True),
    ],
)
def test_deny_then_allow(policies: tuple[HttpPolicy, ...], expected: bool) -> None:
    assert allowed(facts(), *policies) is expected


def test_a_policy_that_was_not_delivered_denies() -> None:
    denied = verdict(facts(), policy(EVERYTHING), missing=("shop/gone",))
    assert isinstance(denied, Denial)
    assert (denied.policy, denied.reason) == (
        "shop/gone", "policy shop/gone holds for the destination but has not been delivered"
    )  # fmt: skip


# --- what is said


def test_verdicts_name_policy_rule_and_clause() -> None:
    denied = verdict(facts(path="/admin/x"), policy(GET, name="a"), policy(ADMIN, action=DENY, name="d"))
    assert isinstance(denied, Denial)
    assert (denied.policy, denied.reason) == (
        "shop/d", "policy shop/d denies: rule 1 (paths [/admin, /admin/*])"
    )  # fmt: skip
    permitted = verdict(facts(), policy(ADMIN, GET))
    assert isinstance(permitted, Permit)
    assert (permitted.policy, permitted.reason) == ("shop/p", "policy shop/p allows: rule 2 (methods [GET])")
    assert permitted.facts == facts().connection


def test_a_request_that_nothing_allows_is_told_what_it_lacks() -> None:
    only = rule(Source(namespaces=("shop",)), Operation(methods=("POST",), not_paths=("/x",)))
    one, several = verdict(facts(), policy(only)), verdict(facts(), policy(only), policy(name="q"))
    assert isinstance(one, Denial)
    assert isinstance(several, Denial)
    assert one.reason == "the only ALLOW policy shop/p does not match: rule 1 needs methods [POST], not_paths [/x]"
    assert several.reason.startswith("no ALLOW policy matches, neither shop/p (rule 1 needs ")
    assert isinstance(empty := verdict(facts(), policy()), Denial)
    assert empty.reason.endswith("it has no rules")


def test_audit_and_dry_run_are_reported() -> None:
    trial = policy(EVERYTHING, action=DENY, dry_run=True, name="trial")
    seen = verdict(facts(), trial, policy(ADMIN, action=AUDIT, name="audit"))
    assert isinstance(seen, Permit)
    assert seen.dry_run == (
        "policy shop/audit (AUDIT) does not match",
        "policy shop/trial (dry run, DENY) matches: rule 1 (matches everything)",
    )


# --- what cannot be evaluated

UNBUILDABLE = [
    rule(error="request.auth.claims[iss] needs a JWT"),
    rule(when=Condition("request.auth.principal", ("*",))),
    rule(when=Condition("experimental.envoy.filters.x", ("*",))),
    rule(when=Condition("request.headers[", ("*",))),
    rule(when=Condition("request.headers[]", ("*",))),
    rule(when=Condition("request.headers[:path]", ("/x",))),
    rule(when=Condition("source.ip", ())),
    rule(when=Condition("destination.port", ("http",))),
    rule(Source(ip_blocks=("10.0.0.0/33",))),
    rule(Source(not_ip_blocks=("somewhere",))),
    rule(Source()),
    rule(to=Operation()),
    rule(to=Operation(paths=("/a/{*}{*}",))),
    rule(to=Operation(paths=("/{**}/{**}",))),
    rule(to=Operation(not_paths=("/a/{x}",))),
]


@pytest.mark.parametrize("broken", UNBUILDABLE)
def test_what_cannot_be_evaluated_denies_and_does_not_allow(broken: PolicyRule) -> None:
    assert not allows(broken, facts())
    assert denies(broken, facts())
    assert not allowed(facts(), policy(broken, EVERYTHING, action=DENY))
    assert allowed(facts(), policy(broken, EVERYTHING)), "another rule still allows"
    denied = verdict(facts(), policy(broken, action=DENY))
    assert "cannot be evaluated: " in denied.reason


def test_of_a_broken_deny_rule_the_rest_still_limits() -> None:
    broken = rule(Source(namespaces=("bank",)), ADMIN.operations[0], error="a JWT is needed")
    assert not denies(broken, facts(path="/admin"))
    assert denies(rule(Source(namespaces=("shop",)), ADMIN.operations[0], error="a JWT"), facts(path="/admin"))


# --- more than one reading


def request(path: str) -> RequestFacts:
    canonical = canonical_path(path)
    assert isinstance(canonical, str), canonical
    return facts(path=canonical)


ENTRIES = [
    "/admin", "//admin", "/./admin", "/x/../admin", "/%61dmin", "/%2e/admin", "/x/%2e%2e/admin", "/%41/../admin",
    "/admin;x", "/admin;x=1;y", "/;/admin", "/x/..;/admin", "/x;y/..;z/admin", "/x%2f..%2fadmin", "/%2fadmin",
    "/%2Fadmin",
    "/%5cadmin", "/x/..%2fadmin", "/x%5C..%5Cadmin", "/admin%3bx", "/x%2f..;%2fadmin", "/;%2f..%2fadmin",
    "/a%2fb;x/../../admin",
    "/x/%2e%2e%3b/admin", "/%2e%2e%2fadmin",
]  # fmt: skip


@pytest.mark.parametrize("path", ENTRIES)
def test_no_spelling_of_a_denied_path_gets_in(path: str) -> None:
    """Whatever a server may make of it, one of its readings is denied; and none is smuggled into what is allowed."""
    seen = request(path)
    assert denies(rule(to=Operation(paths=("/admin",))), seen)
    assert not allows(rule(to=Operation(not_paths=("/admin",))), seen)
    assert not allows(rule(to=Operation(paths=("/x/*", "/x;y/*"))), seen)


SAME = ["/", "//", "/./", "/x/../", "/%2e/", "/%78/%2E%2e/"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["public", "admin", "a b", "\u00e9"]), min_size=1, max_size=4), st.data())
def test_every_spelling_of_a_path_has_the_same_verdict(segments: list[str], data: st.DataObject) -> None:
    def spelled(character: str) -> str:
        octets = character.encode()
        encoded = "".join(f"%{octet:02x}" for octet in octets)
        plain = character if character.isalnum() and character.isascii() else encoded.upper().replace("%C", "%c")
        return data.draw(st.sampled_from([plain, encoded, encoded.upper()]))

    written = "".join(data.draw(st.sampled_from(SAME)) + "".join(map(spelled, segment)) for segment in segments)
    plain = "/" + "/".join("".join(c if c.isalnum() and c.isascii() else "".join(f"%{o:02X}" for o in c.encode())
                                   for c in segment) for segment in segments)  # fmt: skip
    assert canonical_path(written) == plain
    patterns = data.draw(
        st.lists(st.sampled_from(["/admin*", "/public/*", "*/admin", "/a b", "/\u00e9/*", "/{*}/admin"]))
    )
    for fields in ({"paths": tuple(patterns)}, {"not_paths": tuple(patterns)}):
        one = rule(to=Operation(**fields)) if patterns else EVERYTHING
        assert allows(one, request(written)) is allows(one, request(plain))
        assert denies(one, request(written)) is denies(one, request(plain))


@settings(deadline=None)
@given(st.text("/.;aA%2fF5cC3b", max_size=20))
def test_allowed_means_allowed_in_every_reading(text: str) -> None:
    canonical = canonical_path("/" + text)
    if not isinstance(canonical, str):
        return
    found = readings(canonical)
    for pattern in ("/a*", "*/a", "/a/{*}"):
        one = rule(to=Operation(paths=(pattern,)))
        each = [allows(one, facts(path=path)) for path in found if "%" not in path and ";" not in path]
        if allows(one, facts(path=canonical)):
            assert all(each)
        if any(each):
            assert denies(one, facts(path=canonical))


def test_of_a_repeated_header_an_allow_rule_needs_all_and_a_deny_rule_any() -> None:
    role = Condition("request.headers[x-role]", ("admin",))
    twice = facts(headers=(("x-role", "user"), ("x-role", "admin")))
    same = facts(headers=(("x-role", "admin"),))
    assert not allows(rule(when=role), twice)
    assert denies(rule(when=role), twice)
    assert allows(rule(when=role), same)
    unless = Condition("request.headers[x-role]", (), ("admin",))
    assert not allows(rule(when=unless), twice)
    assert denies(rule(when=unless), twice)


def test_a_header_that_some_apps_take_for_another_allows_nothing_and_is_denied() -> None:
    """Gateways after CGI's fashion do not tell X_Role from X-Role; others see two headers, or none."""
    role, unless = (
        Condition("request.headers[x-role]", ("admin",)),
        Condition("request.headers[x-role]", (), ("admin",)),
    )
    for headers in ((("x_role", "admin"),), (("x-role", "user"), ("x_role", "admin"))):
        assert not allows(rule(when=role), facts(headers=headers))
        assert denies(rule(when=role), facts(headers=headers))
        assert not allows(rule(when=unless), facts(headers=headers))
    assert not allows(rule(when=role), facts(headers=(("x-role", "admin"), ("x_role", "user"))))


@settings(deadline=None)
@given(st.text(), st.text(), st.text(), st.lists(st.tuples(st.text(), st.text())), st.text())
def test_no_request_raises(
    method: str, path: str, authority: str, headers: list[tuple[str, str]], pattern: str
) -> None:
    seen = facts(method, path, authority=authority, headers=tuple(headers), trusted_hops=1)
    one = rule(
        Source(remote_ip_blocks=("10.0.0.0/8",)),
        Operation(hosts=(pattern,), methods=(pattern,), paths=(pattern, "/{*}/x"), not_hosts=("*",)),
        Condition(f"request.headers[{pattern}]", (pattern,)),
    )
    assert verdict(seen, policy(one), policy(one, action=DENY, name="d")).reason
