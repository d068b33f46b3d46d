"""L7 authorization as Istio's AuthorizationPolicy says it (security/v1beta1), for evaluation at a waypoint.

Values keep Istio's notation: "abc" exact, "abc*" prefix, "*abc" suffix, "*" present; paths also "{*}" and "{**}".
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from mesh.model.routing import Resource
from mesh.model.workload import PolicyKey


class HttpAction(StrEnum):
    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"


class Source(Struct, frozen=True):
    """Fields are ANDed, values of one are ORed; a `not_` field means that none of its values matches."""

    principals: tuple[str, ...] = ()  # without "spiffe://"
    not_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()  # "<namespace>/<name>"
    not_service_accounts: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()
    not_trust_domains: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()  # of the client's connection into the mesh
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()  # of X-Forwarded-For, as far as it is trusted
    not_remote_ip_blocks: tuple[str, ...] = ()


class Operation(Struct, frozen=True):
    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    not_ports: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class Condition(Struct, frozen=True):
    """`key` as in Istio's list, for example "request.headers[x-version]" or "source.ip"."""

    key: str
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class PolicyRule(Struct, frozen=True):
    """Sources are ORed, operations are ORed, conditions are ANDed, the three are ANDed; none of one is no limit.

    `error`: a clause that cannot be evaluated (a JWT claim, a bad CIDR), and why. Such a rule of a DENY policy denies
    everything that the rest of it matches; one of an ALLOW policy allows nothing.
    """

    sources: tuple[Source, ...] = ()
    operations: tuple[Operation, ...] = ()
    conditions: tuple[Condition, ...] = ()
    error: str = ""


class HttpPolicy(Resource, frozen=True):
    """Its rules are ORed; without rules it matches nothing."""

    namespace: str
    name: str
    action: HttpAction = HttpAction.ALLOW
    rules: tuple[PolicyRule, ...] = ()
    dry_run: bool = False

    @property
    def policy(self) -> PolicyKey:
        return PolicyKey(f"{self.namespace}/{self.name}")

    @property
    def key(self) -> str:
        return f"policy//{self.policy}"
