"""Policies over the wire: all of it comes back, what is wrong is named, and a broken policy never opens anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.address import Cidr, Ip
from mesh.model.policy import Action, Authorization, PolicyScope, Rule
from mesh.wire.authorization import decode_authorization, encode_authorization, refusal
from mesh.wire.errors import InvalidResource
from mesh.wire.generated import authorization_pb2 as wire
from tests.wire import values

NAME = "shop/only-web"


@given(values.policies)
def test_policies_come_back(policy: Authorization) -> None:
    assert decode_authorization(policy.key, encode_authorization(policy)) == policy


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_policy_or_an_invalid_one(payload: bytes) -> None:
    with contextlib.suppress(InvalidResource):
        decode_authorization(NAME, payload)
    assert refusal(NAME, payload).key == NAME


def policy_with(change: Callable[[wire.Match], None]) -> bytes:
    message = wire.Authorization(name="only-web", namespace="shop", action=wire.DENY)
    change(message.rules.add().clauses.add().matches.add())
    return message.SerializeToString()


MATCH = "rules[0].clauses[0].matches[0]"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("source_ips", lambda match: match.source_ips.add(address=b"123", length=8)),
        ("not_source_ips", lambda match: match.not_source_ips.add(address=b"1234", length=33)),
        ("destination_ips", lambda match: match.destination_ips.add()),
        ("not_destination_ips", lambda match: match.not_destination_ips.add(address=bytes(16), length=129)),
        ("destination_ports", lambda match: match.destination_ports.append(65536)),
        ("not_destination_ports", lambda match: match.not_destination_ports.append(65536)),
        ("namespaces", lambda match: match.namespaces.add()),
        ("not_namespaces", lambda match: match.not_namespaces.add()),
        ("principals", lambda match: match.principals.add()),
        ("not_principals", lambda match: match.not_principals.add()),
        ("service_accounts", lambda match: match.service_accounts.add(namespace="shop")),
        ("not_service_accounts", lambda match: match.not_service_accounts.add(serviceAccount="web")),
    ],
)
def test_a_condition_that_cannot_be_read_rejects_the_policy(field: str, change: Callable[[wire.Match], None]) -> None:
    with pytest.raises(InvalidResource) as raised:
        decode_authorization(NAME, policy_with(change))
    assert raised.value.field == f"{MATCH}.{field}"


def test_a_condition_of_a_later_version_rejects_the_policy() -> None:
    def change(match: wire.Match) -> None:
        match.MergeFromString(b"\xa2\x06\x03GET")  # field 100

    with pytest.raises(InvalidResource, match="unknown field 100"):
        decode_authorization(NAME, policy_with(change))


def test_a_mapped_v4_block_is_a_v4_block() -> None:
    def change(match: wire.Match) -> None:
        match.source_ips.add(address=bytes(10) + b"\xff\xff\x0a\x00\x00\x00", length=104)

    policy = decode_authorization(NAME, policy_with(change))
    assert policy.rules[0].clauses[0].matches[0].source_ips == (Cidr(Ip("10.0.0.0"), 8),)


def stand_in(**fields: object) -> Authorization:
    message = wire.Authorization(name="only-web", namespace="shop")
    for field, value in fields.items():
        setattr(message, field, value)
    message.rules.add().clauses.add().matches.add().namespaces.add()
    payload = message.SerializeToString()
    with pytest.raises(InvalidResource):
        decode_authorization(NAME, payload)
    return refusal(NAME, payload)


def test_a_broken_deny_denies_everything_in_its_scope() -> None:
    policy = stand_in(action=wire.DENY, scope=wire.WORKLOAD_SELECTOR)
    assert policy == Authorization("only-web", "shop", PolicyScope.WORKLOAD_SELECTOR, Action.DENY, (Rule(),))


def test_a_broken_allow_allows_nothing() -> None:
    policy = stand_in(action=wire.ALLOW, scope=wire.NAMESPACE)
    assert policy == Authorization("only-web", "shop", PolicyScope.NAMESPACE, Action.ALLOW, ())


def test_a_broken_dry_run_stays_one() -> None:
    assert stand_in(action=wire.DENY, scope=wire.NAMESPACE, dry_run=True).dry_run


def test_what_cannot_be_read_is_taken_strictly() -> None:
    everything = (Rule(),)
    assert stand_in(action=9, scope=9) == Authorization(
        "only-web", "shop", PolicyScope.NAMESPACE, Action.DENY, everything
    )
    assert refusal(NAME, b"\xff") == Authorization("only-web", "shop", PolicyScope.NAMESPACE, Action.DENY, everything)
    assert refusal("nameless", b"\xff") == Authorization("nameless", "", PolicyScope.GLOBAL, Action.DENY, everything)


def test_a_policy_for_another_namespace_than_its_name_says_denies_everywhere() -> None:
    policy = stand_in(action=wire.DENY, scope=wire.NAMESPACE, namespace="bank")
    assert (policy.scope, policy.action) == (PolicyScope.GLOBAL, Action.DENY)
