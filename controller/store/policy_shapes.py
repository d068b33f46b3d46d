"""Istio's security policies as manifests have them (istio/api security/v1, authorization_policy.proto and
peer_authentication.proto).

Unknown fields are errors here, unlike elsewhere: a condition that is overlooked changes what a policy lets through.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import field, json

from controller.store.shapes import AnyObject, Condition, ServiceStatus, Shape


class Strict(Shape, frozen=True, forbid_unknown_fields=True):
    """Base: no field is overlooked."""


class WorkloadSelector(Strict, frozen=True):
    match_labels: dict[str, str] = field(default_factory=dict)


class TargetReference(Strict, frozen=True):
    kind: str
    name: str
    group: str = ""
    namespace: str = ""


class Source(Strict, frozen=True):
    """Fields are ANDed; values of one are ORed; a `not_` field holds when none of its values matches."""

    principals: tuple[str, ...] = ()
    not_principals: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    not_namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()
    not_service_accounts: tuple[str, ...] = ()
    ip_blocks: tuple[str, ...] = ()
    not_ip_blocks: tuple[str, ...] = ()
    remote_ip_blocks: tuple[str, ...] = ()
    not_remote_ip_blocks: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()
    not_trust_domains: tuple[str, ...] = ()


class Operation(Strict, frozen=True):
    hosts: tuple[str, ...] = ()
    not_hosts: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    not_ports: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    not_methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    not_paths: tuple[str, ...] = ()


class When(Strict, frozen=True):
    """A condition on one attribute."""

    key: str
    values: tuple[str, ...] = ()
    not_values: tuple[str, ...] = ()


class From(Strict, frozen=True):
    source: Source = Source()


class To(Strict, frozen=True):
    operation: Operation = Operation()


class AuthorizationRule(Strict, frozen=True):
    from_: tuple[From, ...] = field(default=(), name="from")
    to: tuple[To, ...] = ()
    when: tuple[When, ...] = ()


class Provider(Strict, frozen=True):
    name: str = ""


class AuthorizationPolicySpec(Strict, frozen=True):
    """`rules` are read one by one (`AuthorizationRule`), so that one that is wrong does not take the others with it."""

    selector: WorkloadSelector = WorkloadSelector()
    target_ref: TargetReference | None = None
    target_refs: tuple[TargetReference, ...] = ()
    rules: tuple[Any, ...] = ()
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    provider: Provider = Provider()

    @property
    def targets(self) -> tuple[TargetReference, ...]:
        """What the policy is attached to; then it is a waypoint's and not ztunnel's."""
        return (*self.target_refs, *([self.target_ref] if self.target_ref is not None else []))


MutualTlsMode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]


class MutualTls(Strict, frozen=True):
    mode: MutualTlsMode = "UNSET"


class PeerAuthenticationSpec(Strict, frozen=True):
    """`port_level_mtls`: by the pod's port, in decimal."""

    selector: WorkloadSelector = WorkloadSelector()
    mtls: MutualTls = MutualTls()
    port_level_mtls: dict[str, MutualTls] = field(default_factory=dict)


class SecurityPolicy(AnyObject, frozen=True):
    """Of either kind, not yet read: what cannot be read must still be known, because it must not open anything."""

    spec: Any = field(default_factory=dict)
    status: Any = field(default_factory=dict)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        try:
            return msgspec.convert(self.status, ServiceStatus).conditions
        except msgspec.ValidationError:
            return ()


class AuthorizationPolicy(AnyObject, frozen=True):
    """As the local store checks it."""

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()


class PeerAuthentication(AnyObject, frozen=True):
    """As the local store checks it."""

    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()


for _each in (AuthorizationPolicy, PeerAuthentication, AuthorizationRule, SecurityPolicy):  # as in `shapes`
    json.Decoder(_each)
