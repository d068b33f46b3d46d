"""Filters of a rule or of a backend (HTTPRouteFilter, GRPCRouteFilter) as a waypoint applies them. Pure.

A filter that cannot be applied is never skipped: the rule answers with an error instead ("must respond with an error",
apis/v1 httproute_types).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from controller.compile import route_values as check
from controller.compile.backends import References, resolve
from controller.compile.flaws import Flaws
from controller.store import gateway_shapes as shapes
from mesh.model.routing import Cors, Filters, HeaderChange, Mirror, PathChange, Redirect, Rewrite

_REDIRECTS = (301, 302, 303, 307, 308)
_FIELDS = {
    "RequestHeaderModifier": "request_header_modifier",
    "ResponseHeaderModifier": "response_header_modifier",
    "RequestMirror": "request_mirror",
    "RequestRedirect": "request_redirect",
    "URLRewrite": "url_rewrite",
    "CORS": "cors",
}
_OF_GRPC = frozenset({"RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror"})
_REPEATABLE = "RequestMirror"


@dataclass(frozen=True, slots=True)
class Around:
    """`prefixes`: every match of the rule is of a path prefix, so that there is one that can be replaced."""

    references: References
    prefixes: bool = False

    @property
    def known(self) -> frozenset[str]:
        return _OF_GRPC if self.references.kind == "GRPCRoute" else frozenset(_FIELDS)


def compile_filters(given: Sequence[shapes.RouteFilter], around: Around, flaws: Flaws) -> Filters:
    result, errors = Filters(), list(_together(given, flaws))
    for each in given:
        setting = getattr(each, _FIELDS[each.type]) if each.type in _FIELDS else None
        if each.type not in around.known:
            errors.append(flaws.value(f"a filter of type {each.type} is not supported for {around.references.kind}s"))
        elif setting is None:
            errors.append(flaws.value(f"the filter of type {each.type} says nothing"))
        else:
            problems = list(_CHECKS[each.type](setting, around))
            errors += [flaws.value(f"{each.type}: {problem}") for problem in problems]
            if not problems:
                result = _with(result, each.type, setting, around, flaws)
    return replace(result, error="; ".join(errors))


def _together(given: Iterable[shapes.RouteFilter], flaws: Flaws) -> Iterator[str]:
    counts = Counter(each.type for each in given)
    for type_, count in counts.items():
        if count > 1 and type_ != _REPEATABLE:
            yield flaws.incompatible(f"a rule cannot have {count} filters of type {type_}")
    if counts["RequestRedirect"] and counts["URLRewrite"]:
        yield flaws.incompatible("a rule cannot have both RequestRedirect and URLRewrite")


def _with(filters: Filters, type_: str, setting: Any, around: Around, flaws: Flaws) -> Filters:
    match type_:
        case "RequestHeaderModifier":
            return replace(filters, request_headers=_headers(setting))
        case "ResponseHeaderModifier":
            return replace(filters, response_headers=_headers(setting))
        case "RequestMirror":
            return replace(filters, mirrors=(*filters.mirrors, _mirror(setting, around.references, flaws)))
        case "RequestRedirect":
            return replace(filters, redirect=_redirect(setting))
        case "URLRewrite":
            return replace(filters, rewrite=Rewrite(setting.hostname, _path(setting.path)))
    return replace(filters, cors=_cors(setting))


def _headers(setting: shapes.HeaderFilter) -> HeaderChange:
    def pairs(headers: Iterable[shapes.HttpHeader]) -> tuple[tuple[str, str], ...]:
        first: dict[str, tuple[str, str]] = {}  # of names that are the same but for case the first counts
        for each in headers:
            first.setdefault(each.name.lower(), (each.name, each.value))
        return tuple(first.values())

    return HeaderChange(pairs(setting.set), pairs(setting.add), setting.remove)


def _mirror(setting: shapes.MirrorFilter, references: References, flaws: Flaws) -> Mirror:
    backend = resolve(setting.backend_ref, 1, references, flaws)
    if setting.fraction is not None:
        return Mirror(backend, setting.fraction.numerator, setting.fraction.denominator)
    return Mirror(backend, 100 if setting.percent is None else setting.percent)


def _redirect(setting: shapes.RedirectFilter) -> Redirect:
    return Redirect(setting.scheme, setting.hostname, _path(setting.path), setting.port, setting.status_code)


def _path(setting: shapes.PathModifier | None) -> PathChange | None:
    if setting is None:
        return None
    if setting.type == "ReplaceFullPath":
        return PathChange(full=setting.replace_full_path)
    return PathChange(prefix=setting.replace_prefix_match)


def _cors(setting: shapes.CorsFilter) -> Cors:
    return Cors(
        setting.allow_origins,
        setting.allow_methods,
        setting.allow_headers,
        setting.expose_headers,
        setting.allow_credentials,
        setting.max_age,
    )


# --- what is wrong with a filter


def _check_headers(setting: shapes.HeaderFilter, _: Around) -> Iterator[str]:
    changes = [
        *((each.name, each.value) for each in (*setting.set, *setting.add)),
        *((name, "") for name in setting.remove),
    ]
    yield from filter(None, (check.changed_header(name, value) for name, value in changes))


def _check_mirror(setting: shapes.MirrorFilter, _: Around) -> Iterator[str]:
    if setting.percent is not None and setting.fraction is not None:
        yield "either a percentage or a fraction"
    if setting.fraction is not None and setting.fraction.numerator > setting.fraction.denominator:
        yield "the fraction is more than all requests"


def _check_redirect(setting: shapes.RedirectFilter, around: Around) -> Iterator[str]:
    if setting.scheme not in (None, "http", "https"):
        yield f"scheme {setting.scheme!r} is neither http nor https"
    if setting.status_code not in _REDIRECTS:
        yield f"status {setting.status_code} is none of {', '.join(map(str, _REDIRECTS))}"
    yield from _check_place(setting.hostname, setting.path, around)


def _check_rewrite(setting: shapes.RewriteFilter, around: Around) -> Iterator[str]:
    yield from _check_place(setting.hostname, setting.path, around)


def _check_place(hostname: str | None, path: shapes.PathModifier | None, around: Around) -> Iterator[str]:
    if hostname is not None and (hostname.startswith("*") or check.hostname(hostname)):
        yield f"{hostname!r} is not a host name"
    if path is None:
        return
    full, prefix = path.replace_full_path, path.replace_prefix_match
    if path.type == "ReplaceFullPath" and full is not None:
        yield from filter(None, [check.path(full)])
    elif path.type == "ReplacePrefixMatch" and prefix is not None:
        if prefix:  # "" stands for "/"
            yield from filter(None, [check.path(prefix)])
        if not around.prefixes:
            yield "ReplacePrefixMatch needs matches of type PathPrefix, and no others"
    else:
        yield f"path of type {path.type} says nothing that is known"


def _check_cors(setting: shapes.CorsFilter, _: Around) -> Iterator[str]:
    names = (*setting.allow_headers, *setting.expose_headers, *setting.allow_methods)
    yield from filter(None, (check.header_name(name) for name in names))
    yield from (f"{origin!r} is not an origin" for origin in setting.allow_origins if not origin.isprintable())


_CHECKS: dict[str, Callable[[Any, Around], Iterator[str]]] = {
    "RequestHeaderModifier": _check_headers,
    "ResponseHeaderModifier": _check_headers,
    "RequestMirror": _check_mirror,
    "RequestRedirect": _check_redirect,
    "URLRewrite": _check_rewrite,
    "CORS": _check_cors,
}
