"""L4 authorization as istio.security.Authorization describes it (reference: authorization.proto)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from mesh.model.address import Cidr
from mesh.model.workload import PolicyKey


class PolicyScope(IntEnum):
    GLOBAL = 0
    NAMESPACE = 1
    WORKLOAD_SELECTOR = 2


class Action(IntEnum):
    ALLOW = 0
    DENY = 1


class MatchKind(IntEnum):
    EXACT = 1
    PREFIX = 2
    SUFFIX = 3
    PRESENCE = 4


@dataclass(frozen=True, slots=True)
class StringMatch:
    kind: MatchKind
    value: str = ""


@dataclass(frozen=True, slots=True)
class ServiceAccountMatch:
    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Match:
    """Fields are ANDed; the values of one field are ORed; a `not_` field means that none of its values matches."""

    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()
    principals: tuple[StringMatch, ...] = ()  # without the scheme: "cluster.local/ns/shop/sa/web"
    not_principals: tuple[StringMatch, ...] = ()
    source_ips: tuple[Cidr, ...] = ()
    not_source_ips: tuple[Cidr, ...] = ()
    destination_ips: tuple[Cidr, ...] = ()
    not_destination_ips: tuple[Cidr, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()
    service_accounts: tuple[ServiceAccountMatch, ...] = ()
    not_service_accounts: tuple[ServiceAccountMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class Clause:
    """Matches are ORed; a clause without matches is true."""

    matches: tuple[Match, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """Clauses are ANDed; a rule without clauses matches everything."""

    clauses: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Authorization:
    """A policy; its rules are ORed, and without rules it matches nothing."""

    name: str
    namespace: str
    scope: PolicyScope
    action: Action
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False

    @property
    def key(self) -> PolicyKey:
        return PolicyKey(f"{self.namespace}/{self.name}")


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The policies of one destination, in the order in which they decide."""

    deny: tuple[Authorization, ...] = ()
    allow: tuple[Authorization, ...] = ()
    dry_run: tuple[Authorization, ...] = ()  # reported, never enforced
    missing: tuple[PolicyKey, ...] = ()  # the workload names them, but they have not been delivered

    @classmethod
    def of(cls, policies: Iterable[Authorization], missing: Iterable[PolicyKey] = ()) -> PolicySet:
        policies = sorted(policies, key=lambda policy: policy.key)
        enforced = [policy for policy in policies if not policy.dry_run]
        return cls(
            deny=tuple(policy for policy in enforced if policy.action is Action.DENY),
            allow=tuple(policy for policy in enforced if policy.action is Action.ALLOW),
            dry_run=tuple(policy for policy in policies if policy.dry_run),
            missing=tuple(sorted(missing)),
        )
