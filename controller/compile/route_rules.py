"""Rules of HTTPRoute, GRPCRoute, TLSRoute and TCPRoute as a waypoint follows them. Pure.

What is wrong is in `flaws`. A rule whose traffic cannot be dealt with as it says stays, with an error for an answer;
only a match that can never be is left out, and with its last match the rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from controller.compile import route_values as check
from controller.compile.backends import References, resolve
from controller.compile.flaws import Flaws
from controller.compile.route_filters import Around, compile_filters
from controller.store import gateway_shapes as shapes
from mesh.model.routing import (
    Backend,
    GrpcMatch,
    GrpcRule,
    HttpMatch,
    HttpRule,
    MatchType,
    PathMatch,
    Retry,
    TcpRule,
    Timeouts,
    TlsRule,
    ValueMatch,
)

DEFAULT_ATTEMPTS = 2  # of HTTPRouteRetry, which leaves it to us; Istio's
_METHOD = re.compile(r"[A-Z][A-Z-]*")
_GRPC_NAME = re.compile(r"[A-Za-z0-9_.]+")  # of a service or a method
_VALUE_TYPES = ("Exact", "RegularExpression")

Given = TypeVar("Given")
Match = TypeVar("Match")


def http_rules(rules: Iterable[shapes.HttpRule], references: References) -> tuple[tuple[HttpRule, ...], Flaws]:
    flaws, found = Flaws(), []
    for flaws.rule, rule in enumerate(rules):
        matches = _matches(rule.matches, _http_match, HttpMatch(), flaws)
        if matches:
            found.append(_http_rule(rule, matches, references, flaws))
    return tuple(found), flaws


def grpc_rules(rules: Iterable[shapes.GrpcRule], references: References) -> tuple[tuple[GrpcRule, ...], Flaws]:
    flaws, found = Flaws(), []
    for flaws.rule, rule in enumerate(rules):
        matches = _matches(rule.matches, _grpc_match, GrpcMatch(), flaws)
        if matches:
            around = Around(references)
            filters = compile_filters(rule.filters, around, flaws)
            _sessions(rule.session_persistence, flaws)
            found.append(GrpcRule(matches, filters, _backends(rule.backend_refs, around, flaws), rule.name))
    return tuple(found), flaws


def tls_rules(spec: shapes.PlainRouteSpec, references: References) -> tuple[tuple[TlsRule, ...], Flaws]:
    flaws, found = Flaws(), []
    wrong = [flaws.value(problem) for problem in map(check.hostname, spec.hostnames) if problem]
    names = tuple(name for name in spec.hostnames if not check.hostname(name))
    if wrong and not names:  # without a name it would match all
        return (), flaws
    for flaws.rule, rule in enumerate(spec.rules):
        found.append(TlsRule(names, _backends(rule.backend_refs, Around(references), flaws), rule.name))
    return tuple(found), flaws


def tcp_rules(spec: shapes.PlainRouteSpec, references: References) -> tuple[tuple[TcpRule, ...], Flaws]:
    flaws, found = Flaws(), []
    for flaws.rule, rule in enumerate(spec.rules):
        found.append(TcpRule(_backends(rule.backend_refs, Around(references), flaws), rule.name))
    return tuple(found), flaws


# --- HTTP


def _http_rule(rule: shapes.HttpRule, matches: tuple[HttpMatch, ...], references: References, flaws: Flaws) -> HttpRule:
    around = Around(references, prefixes=all(match.path.type is MatchType.PREFIX for match in matches))
    filters = compile_filters(rule.filters, around, flaws)
    timeouts, retry, problems = _times(rule)
    if rule.backend_refs and filters.redirect is not None:
        filters = replace(filters, error=flaws.incompatible("a rule that redirects has no backends"))
    errors = [flaws.value(problem) for problem in problems]
    if errors:
        filters = replace(filters, error="; ".join(filter(None, (filters.error, *errors))))
    _sessions(rule.session_persistence, flaws)
    return HttpRule(matches, filters, _backends(rule.backend_refs, around, flaws), timeouts, retry, rule.name)


def _times(rule: shapes.HttpRule) -> tuple[Timeouts, Retry | None, list[str]]:
    texts = {"request": rule.timeouts.request, "backendRequest": rule.timeouts.backend_request}
    if rule.retry is not None:
        texts["backoff"] = rule.retry.backoff
    seconds = {name: check.duration(text) for name, text in texts.items()}
    problems = [f"{name}: {texts[name]!r} is not a duration" for name, value in seconds.items() if value is None]
    request, backend = seconds["request"] or 0.0, seconds["backendRequest"] or 0.0
    if request and backend > request:
        problems.append("backendRequest is longer than request")
    if rule.retry is None:
        return Timeouts(request, backend), None, problems
    problems += [
        f"retry: {code} is not a status that is retried" for code in rule.retry.codes if not 400 <= code <= 599
    ]
    attempts = DEFAULT_ATTEMPTS if rule.retry.attempts is None else rule.retry.attempts
    return Timeouts(request, backend), Retry(rule.retry.codes, attempts, seconds["backoff"] or 0.0), problems


def _http_match(given: shapes.HttpMatch) -> HttpMatch:
    if given.method and not _METHOD.fullmatch(given.method):
        raise _Impossible(f"{given.method!r} is not a method")
    return HttpMatch(_path(given.path), _headers(given.headers), _values(given.query_params), given.method)


def _path(given: shapes.PathMatch) -> PathMatch:
    if given.type not in ("Exact", "PathPrefix", "RegularExpression"):
        raise _Impossible(f"a path match of type {given.type} is not supported")
    _require(check.expression(given.value) if given.type == "RegularExpression" else check.path(given.value))
    return PathMatch(MatchType(given.type), given.value)


def _headers(given: Sequence[shapes.ValueMatch]) -> tuple[ValueMatch, ...]:
    """Names are compared without regard to case; of equal ones the first counts."""
    for each in given:
        _require(check.header_name(each.name))
    return _values([shapes.ValueMatch(name=each.name.lower(), value=each.value, type=each.type) for each in given])


def _values(given: Iterable[shapes.ValueMatch]) -> tuple[ValueMatch, ...]:
    found: dict[str, ValueMatch] = {}
    for each in given:
        _check_type(each.name, each.type)
        if each.type == "RegularExpression":
            _require(check.expression(each.value))
        found.setdefault(each.name, ValueMatch(each.name, each.value, MatchType(each.type)))
    return tuple(found.values())


# --- gRPC


def _grpc_match(given: shapes.GrpcMatch) -> GrpcMatch:
    method = given.method
    _check_type("method", method.type)
    for text in filter(None, (method.service, method.method)):
        if method.type == "RegularExpression":
            _require(check.expression(text))
        elif not _GRPC_NAME.fullmatch(text):
            raise _Impossible(f"{text!r} is not the name of a service or method")
    return GrpcMatch(method.service, method.method, MatchType(method.type), _headers(given.headers))


# --- all kinds


class _Impossible(Exception):
    """No request can match this, and why."""


def _require(problem: str) -> None:
    if problem:
        raise _Impossible(problem)


def _check_type(name: str, type_: str) -> None:
    if type_ not in _VALUE_TYPES:
        raise _Impossible(f"a match of {name!r} of type {type_} is not supported")


def _matches(
    given: Sequence[Given], read: Callable[[Given], Match], everything: Match, flaws: Flaws
) -> tuple[Match, ...]:
    """None at all when there are some and none of them can be."""
    if not given:
        return (everything,)
    found = []
    for number, each in enumerate(given):
        try:
            found.append(read(each))
        except _Impossible as why:
            flaws.value(f"matches[{number}] is left out: {why}")
    return tuple(found)


def _backends(given: Iterable[shapes.BackendReference], around: Around, flaws: Flaws) -> tuple[Backend, ...]:
    return tuple(
        replace(
            resolve(each, each.weight, around.references, flaws),
            filters=compile_filters(each.filters, around, flaws),
        )
        for each in given
    )


def _sessions(setting: object, flaws: Flaws) -> None:
    if setting is not None:
        flaws.ignored("sessionPersistence is not supported and has no effect")
