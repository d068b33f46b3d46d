"""An AuthorizationPolicy with targetRefs as a waypoint evaluates it (istio/api security/v1). Pure.

What cannot be evaluated stays in its rule as an error: a rule that allows then allows nothing, and one that denies goes
without that field, so that it denies more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from controller.compile.policies import dry_run_of
from controller.compile.policy_rules import camel
from controller.store import policy_shapes as shapes
from controller.store import policy_values as values
from controller.store.gateway_shapes import GROUP
from controller.store.interface import Key
from mesh.model.http_policy import Condition, HttpAction, HttpPolicy, Operation, PolicyRule, Source

Read = Callable[[str, str], Any]  # (value, namespace of the policy); raises ValueError
_NOT = "not_"
_TEMPLATES = ("{*}", "{**}")
_HEADER = re.compile(r"request\.headers\[[^\[\]]+\]")
_TOKENS = "needs a JSON web token, which waypoints do not read"


def _text(text: str, _: str) -> str:
    values.string_match(text)
    return text


def _principal(text: str, _: str) -> str:
    values.principal(text)
    return text


def _trust_domain(text: str, _: str) -> str:
    values.trust_domain(text)
    return text


def _account(text: str, namespace: str) -> str:
    match = values.service_account(text, namespace)
    return f"{match.namespace}/{match.service_account}"


def _block(text: str, _: str) -> str:
    values.block(text)
    return text


def _port(text: str, _: str) -> int:
    return values.port(text)


def _path(text: str, _: str) -> str:
    """`{*}` stands for a segment, `{**}` for any number; only without them may a * begin or end the path."""
    if "{" not in text and "}" not in text:
        values.string_match(text)
        return text
    segments = text.split("/")
    for segment in segments:
        if segment not in _TEMPLATES and any(character in segment for character in "{}*"):
            raise ValueError(f"{text!r}: {{*}} and {{**}} stand for a whole segment, and go with no other * or brace")
    if segments.count("{**}") > 1:
        raise ValueError(f"{text!r}: {{**}} may occur once")
    return text


_SOURCE: dict[str, Read] = {
    "principals": _principal,
    "namespaces": _text,
    "service_accounts": _account,
    "trust_domains": _trust_domain,
    "ip_blocks": _block,
    "remote_ip_blocks": _block,
}
_OPERATION: dict[str, Read] = {"hosts": _text, "ports": _port, "methods": _text, "paths": _path}
_KEYS: dict[str, Read] = {
    "source.principal": _principal,
    "source.namespace": _text,
    "source.serviceAccount": _account,
    "source.trustDomain": _trust_domain,
    "source.ip": _block,
    "remote.ip": _block,
    "destination.ip": _block,
    "destination.port": lambda text, namespace: str(_port(text, namespace)),
    "connection.sni": _text,
}


@dataclass(frozen=True, slots=True)
class Targets:
    """What a policy is attached to. `problems` are references that can be none."""

    keys: tuple[Key, ...] = ()
    problems: tuple[str, ...] = ()


def spec_of(policy: shapes.SecurityPolicy) -> shapes.AuthorizationPolicySpec | None:
    """None for a policy that is not a waypoint's: without targets, or unreadable, and then ztunnel denies."""
    try:
        spec = msgspec.convert(policy.spec, shapes.AuthorizationPolicySpec)
    except msgspec.ValidationError:
        return None
    return spec if spec.targets and not spec.selector.match_labels else None


def targets_of(namespace: str, spec: shapes.AuthorizationPolicySpec, root_namespaces: Collection[str]) -> Targets:
    """A policy is attached to what is in its own namespace (Istio: pkg/model/policyattachment), or to a class."""
    keys, problems = [], []
    for number, each in enumerate(spec.targets):
        place = f"spec.targetRefs[{number}]"
        if each.namespace not in ("", namespace):
            problems.append(f"{place}: {each.kind} {each.name} is in another namespace")
        elif (each.group, each.kind) in (("", "Service"), ("core", "Service"), (GROUP, "Gateway")):
            keys.append(Key(each.kind, namespace, each.name))
        elif (each.group, each.kind) == (GROUP, "GatewayClass"):
            if namespace in root_namespaces:
                keys.append(Key("GatewayClass", "", each.name))
            else:
                problems.append(f"{place}: only policies in {' or '.join(root_namespaces)} can be for a GatewayClass")
        else:
            problems.append(f"{place}: {each.kind} {each.group}".rstrip() + " cannot have policies")
    return Targets(tuple(dict.fromkeys(keys)), tuple(problems))


def compile_http_policy(
    key: Key, policy: shapes.SecurityPolicy, spec: shapes.AuthorizationPolicySpec
) -> tuple[HttpPolicy, tuple[str, ...]]:
    """With the sentences about what is not evaluated as written."""
    problems: list[str] = []
    action = spec.action
    if action == "CUSTOM":
        problems.append("spec.action: CUSTOM is not supported: what the rules match is denied")
        action = "DENY"
    rules = []
    for number, raw in enumerate(spec.rules):
        rule, errors = _Reader(key.namespace).rule(raw)
        rules.append(rule)
        problems += [f"spec.rules[{number}]{error}" for error in errors]
    found = HttpPolicy(key.namespace, key.name, HttpAction(action), tuple(rules), dry_run_of(policy))
    return found, tuple(problems)


class _Reader:
    """Reads one rule and collects what cannot be evaluated."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._errors: list[str] = []

    def rule(self, raw: Any) -> tuple[PolicyRule, list[str]]:
        try:
            given = msgspec.convert(raw, shapes.AuthorizationRule)
        except msgspec.ValidationError as error:
            sentence = f" cannot be read: {error}"
            return PolicyRule(error=sentence.strip()), [sentence]
        rule = PolicyRule(
            tuple(
                Source(**self._fields(each.source, _SOURCE, f".from[{number}].source"))
                for number, each in enumerate(given.from_)
            ),
            tuple(
                Operation(**self._fields(each.operation, _OPERATION, f".to[{number}].operation"))
                for number, each in enumerate(given.to)
            ),
            tuple(self._conditions(given.when)),
        )
        return msgspec.structs.replace(rule, error="; ".join(each.lstrip(".") for each in self._errors)), self._errors

    def _fields(self, part: msgspec.Struct, known: Mapping[str, Read], place: str) -> dict[str, tuple[Any, ...]]:
        given = [(name, texts) for name in part.__struct_fields__ if (texts := getattr(part, name))]
        if not given:
            self._errors.append(f"{place}: it names nothing")
        found = {}
        for name, texts in given:
            read = known.get(name.removeprefix(_NOT))
            if read is None:
                self._errors.append(f"{place}.{camel(name)}: {_TOKENS}")
            else:
                found[name] = self._values(texts, read, f"{place}.{camel(name)}")
        return found

    def _conditions(self, given: Iterable[shapes.When]) -> Iterable[Condition]:
        for number, when in enumerate(given):
            place = f".when[{number}]"
            read = _text if _HEADER.fullmatch(when.key) else _KEYS.get(when.key)
            if read is None:
                why = _TOKENS if when.key.startswith("request.auth.") else "is no key that waypoints know"
                self._errors.append(f"{place}.key: {when.key!r} {why}")
            elif not when.values and not when.not_values:
                self._errors.append(f"{place}: values and notValues are both missing")
            else:
                wanted = self._values(when.values, read, f"{place}.values")
                unwanted = self._values(when.not_values, read, f"{place}.notValues")
                if wanted or unwanted:
                    yield Condition(when.key, wanted, unwanted)

    def _values(self, texts: Iterable[str], read: Read, place: str) -> tuple[Any, ...]:
        """None of them if one cannot be read: a shorter list would deny less."""
        found = []
        for number, text in enumerate(texts):
            try:
                found.append(read(text, self._namespace))
            except ValueError as error:
                self._errors.append(f"{place}[{number}]: {error}")
                return ()
        return tuple(found)
