"""istio.security.Authorization to and from the model.

Decoding is strict, because each part that is left out changes what a policy lets through. A policy that cannot be
built must never open anything, so `refusal` gives what stands in for it: a DENY then denies everything in its scope,
an ALLOW allows nothing (and thereby denies what no other policy allows).
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from mesh.model.address import Cidr, packed
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
from mesh.wire.address import decode_cidr
from mesh.wire.errors import InvalidField, InvalidResource, choice, port
from mesh.wire.generated import authorization_pb2 as wire

_EVERYTHING = (Rule(),)  # a rule without clauses


def encode_authorization(policy: Authorization) -> bytes:
    """A serialized istio.security.Authorization; equal values give equal bytes."""
    message = wire.Authorization(
        name=policy.name,
        namespace=policy.namespace,
        scope=wire.Scope.Name(policy.scope),
        action=wire.Action.Name(policy.action),
        rules=[_encode_rule(rule) for rule in policy.rules],
        dry_run=policy.dry_run,
    )
    return message.SerializeToString(deterministic=True)


def decode_authorization(name: str, payload: bytes) -> Authorization:
    """The policy called `name` ("namespace/name"). Raises InvalidResource; then `refusal` is the policy to hold."""
    try:
        message = wire.Authorization.FromString(payload)
        policy = Authorization(
            name=message.name,
            namespace=message.namespace,
            scope=choice(PolicyScope, message.scope, "scope"),
            action=choice(Action, message.action, "action"),
            rules=tuple(_decode_rule(rule, f"rules[{index}]") for index, rule in enumerate(message.rules)),
            dry_run=message.dry_run,
        )
    except DecodeError:
        raise InvalidResource(name, "resource", "not an istio.security.Authorization") from None
    except InvalidField as error:
        raise InvalidResource(name, error.field, error.reason) from None
    if policy.key != name:
        raise InvalidResource(name, "name", f"the policy inside is {policy.key!r}")
    return policy


def refusal(name: str, payload: bytes) -> Authorization:
    """What stands in for a policy that `decode_authorization` refused: at least as strict, whatever was meant.

    Scope and action are those of `payload` as far as they can be read; what cannot be read is taken as strict as it can
    be. A readable dry run stays one: it was never meant to be enforced.
    """
    namespace, _, own_name = name.rpartition("/")
    scope, action, dry_run = PolicyScope.NAMESPACE, Action.DENY, False
    message = _readable(payload)
    if message is not None:
        scope, action, dry_run = _known_scope(message), _known_action(message), message.dry_run
    if scope is PolicyScope.NAMESPACE and (not namespace or (message and message.namespace != namespace)):
        scope = PolicyScope.GLOBAL  # it does not say for sure which namespace
    return strictest(namespace, own_name, scope, action, dry_run=dry_run)


def strictest(namespace: str, name: str, scope: PolicyScope, action: Action, *, dry_run: bool) -> Authorization:
    """The policy of that name, scope and action that lets nothing through."""
    rules = _EVERYTHING if action is Action.DENY else ()
    return Authorization(name, namespace, scope, action, rules, dry_run)


def _known_scope(message: wire.Authorization) -> PolicyScope:
    try:
        return PolicyScope(message.scope)
    except ValueError:
        return PolicyScope.NAMESPACE


def _known_action(message: wire.Authorization) -> Action:
    try:
        return Action(message.action)
    except ValueError:
        return Action.DENY


def _readable(payload: bytes) -> wire.Authorization | None:
    try:
        return wire.Authorization.FromString(payload)
    except DecodeError:
        return None


def _encode_rule(rule: Rule) -> wire.Rule:
    return wire.Rule(clauses=[wire.Clause(matches=map(_encode_match, clause.matches)) for clause in rule.clauses])


def _decode_rule(message: wire.Rule, field: str) -> Rule:
    _refuse_unknown(message, field)
    return Rule(tuple(_decode_clause(each, f"{field}.clauses[{i}]") for i, each in enumerate(message.clauses)))


def _decode_clause(message: wire.Clause, field: str) -> Clause:
    _refuse_unknown(message, field)
    return Clause(tuple(_decode_match(each, f"{field}.matches[{i}]") for i, each in enumerate(message.matches)))


def _encode_match(match: Match) -> wire.Match:
    return wire.Match(
        namespaces=map(_encode_string, match.namespaces),
        not_namespaces=map(_encode_string, match.not_namespaces),
        principals=map(_encode_string, match.principals),
        not_principals=map(_encode_string, match.not_principals),
        source_ips=map(_encode_cidr, match.source_ips),
        not_source_ips=map(_encode_cidr, match.not_source_ips),
        destination_ips=map(_encode_cidr, match.destination_ips),
        not_destination_ips=map(_encode_cidr, match.not_destination_ips),
        destination_ports=match.destination_ports,
        not_destination_ports=match.not_destination_ports,
        service_accounts=map(_encode_account, match.service_accounts),
        not_service_accounts=map(_encode_account, match.not_service_accounts),
    )


def _decode_match(message: wire.Match, field: str) -> Match:
    _refuse_unknown(message, field)
    return Match(
        namespaces=_strings(message.namespaces, f"{field}.namespaces"),
        not_namespaces=_strings(message.not_namespaces, f"{field}.not_namespaces"),
        principals=_strings(message.principals, f"{field}.principals"),
        not_principals=_strings(message.not_principals, f"{field}.not_principals"),
        source_ips=_cidrs(message.source_ips, f"{field}.source_ips"),
        not_source_ips=_cidrs(message.not_source_ips, f"{field}.not_source_ips"),
        destination_ips=_cidrs(message.destination_ips, f"{field}.destination_ips"),
        not_destination_ips=_cidrs(message.not_destination_ips, f"{field}.not_destination_ips"),
        destination_ports=_ports(message.destination_ports, f"{field}.destination_ports"),
        not_destination_ports=_ports(message.not_destination_ports, f"{field}.not_destination_ports"),
        service_accounts=_accounts(message.service_accounts, f"{field}.service_accounts"),
        not_service_accounts=_accounts(message.not_service_accounts, f"{field}.not_service_accounts"),
    )


def _encode_string(match: StringMatch) -> wire.StringMatch:
    match match.kind:
        case MatchKind.EXACT:
            return wire.StringMatch(exact=match.value)
        case MatchKind.PREFIX:
            return wire.StringMatch(prefix=match.value)
        case MatchKind.SUFFIX:
            return wire.StringMatch(suffix=match.value)
        case MatchKind.PRESENCE:
            return wire.StringMatch(presence=Empty())


def _strings(messages: Iterable[wire.StringMatch], field: str) -> tuple[StringMatch, ...]:
    return tuple(_decode_string(message, field) for message in messages)


def _decode_string(message: wire.StringMatch, field: str) -> StringMatch:
    match message.WhichOneof("match_type"):
        case "exact":
            return StringMatch(MatchKind.EXACT, message.exact)
        case "prefix":
            return StringMatch(MatchKind.PREFIX, message.prefix)
        case "suffix":
            return StringMatch(MatchKind.SUFFIX, message.suffix)
        case "presence":
            return StringMatch(MatchKind.PRESENCE)
        case _:
            raise InvalidField(field, "a string match without exact, prefix, suffix or presence")


def _encode_cidr(cidr: Cidr) -> wire.Address:
    return wire.Address(address=packed(cidr.ip), length=cidr.length)


def _cidrs(messages: Iterable[wire.Address], field: str) -> tuple[Cidr, ...]:
    return tuple(decode_cidr(message.address, message.length, field) for message in messages)


def _ports(numbers: Iterable[int], field: str) -> tuple[int, ...]:
    return tuple(port(number, field) for number in numbers)


def _encode_account(match: ServiceAccountMatch) -> wire.ServiceAccountMatch:
    return wire.ServiceAccountMatch(namespace=match.namespace, serviceAccount=match.service_account)


def _accounts(messages: Iterable[wire.ServiceAccountMatch], field: str) -> tuple[ServiceAccountMatch, ...]:
    matches = tuple(ServiceAccountMatch(message.namespace, message.serviceAccount) for message in messages)
    if not all(match.namespace and match.service_account for match in matches):
        raise InvalidField(field, "a service account without its namespace or its name")
    return matches


def _refuse_unknown(message: Message, field: str) -> None:
    """A condition that this version does not know cannot be left out without changing what the policy lets through."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise InvalidField(field, f"unknown field {unknown[0].field_number}")
