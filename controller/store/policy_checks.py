"""Rules of security policies beyond their types: what Istio's webhook refuses (pkg/config/validation). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from controller.store import policy_values as values
from controller.store.finding import Finding
from controller.store.policy_shapes import AuthorizationPolicy, AuthorizationRule, PeerAuthentication, WorkloadSelector
from controller.store.yaml_text import Path

_SPEC: Path = ("spec",)
_RULES: Path = ("spec", "rules")

Read = Callable[[str], object]

_SOURCE: dict[str, Read] = {
    "principals": values.principal,
    "notPrincipals": values.principal,
    "namespaces": values.string_match,
    "notNamespaces": values.string_match,
    "serviceAccounts": lambda text: values.service_account(text, "-"),
    "notServiceAccounts": lambda text: values.service_account(text, "-"),
    "ipBlocks": values.block,
    "notIpBlocks": values.block,
    "remoteIpBlocks": values.block,
    "notRemoteIpBlocks": values.block,
    "trustDomains": values.trust_domain,
    "notTrustDomains": values.trust_domain,
}
_OPERATION: dict[str, Read] = {"ports": values.port, "notPorts": values.port}
_WHEN: dict[str, Read] = {
    "source.ip": values.block,
    "remote.ip": values.block,
    "destination.ip": values.block,
    "destination.port": values.port,
    "source.serviceAccount": lambda text: values.service_account(text, "-"),
    "source.trustDomain": values.trust_domain,
}


def authorization_policy(policy: AuthorizationPolicy) -> Iterator[Finding]:
    spec = policy.spec
    if spec.targets and spec.selector.match_labels:
        yield Finding((*_SPEC, "selector"), "a policy has either a selector or targetRefs")
    yield from _selector(spec.selector)
    for number, raw in enumerate(spec.rules):
        here: Path = (*_RULES, number)
        try:
            rule = msgspec.convert(raw, AuthorizationRule)
        except msgspec.ValidationError as error:
            yield Finding(here, str(error))
            continue
        yield from _rule(rule, here)


def _rule(rule: AuthorizationRule, here: Path) -> Iterator[Finding]:
    for number, each in enumerate(rule.from_):
        yield from _fields(each.source, (*here, "from", number, "source"), _SOURCE)
    for number, to in enumerate(rule.to):
        yield from _fields(to.operation, (*here, "to", number, "operation"), _OPERATION)
    for number, when in enumerate(rule.when):
        place = (*here, "when", number)
        if not when.values and not when.not_values:
            yield Finding(place, "values and notValues are both missing")
        read = _WHEN.get(when.key, _not_empty)
        yield from _all(when.values, (*place, "values"), read)
        yield from _all(when.not_values, (*place, "notValues"), read)


def _fields(part: msgspec.Struct, here: Path, reads: dict[str, Read]) -> Iterator[Finding]:
    given = {name: found for name, found in msgspec.to_builtins(part).items() if found}
    if not given:
        yield Finding(here, "it names nothing")
    for name, found in given.items():
        yield from _all(found, (*here, name), reads.get(name, _not_empty))


def _all(texts: Iterable[str], here: Path, read: Read) -> Iterator[Finding]:
    for number, text in enumerate(texts):
        try:
            read(text)
        except ValueError as error:
            yield Finding((*here, number), str(error))


def _not_empty(text: str) -> None:
    if not text:
        raise ValueError("an empty value matches nothing")


def _selector(selector: WorkloadSelector) -> Iterator[Finding]:
    for key, value in selector.match_labels.items():
        if not key or "*" in key + value:
            yield Finding((*_SPEC, "selector", "matchLabels", key), "labels are compared as they are: no wild cards")


def peer_authentication(policy: PeerAuthentication) -> Iterator[Finding]:
    spec = policy.spec
    yield from _selector(spec.selector)
    if spec.port_level_mtls and not spec.selector.match_labels:
        yield Finding((*_SPEC, "portLevelMtls"), "needs a selector")
    for text in spec.port_level_mtls:
        try:
            values.port(text)
        except ValueError as error:
            yield Finding((*_SPEC, "portLevelMtls", text), str(error))
