"""Filters of a rule or backend, compiled: what they change in requests and responses, or why they cannot be applied."""

from __future__ import annotations

import re
from collections.abc import Callable

from mesh.model.routing import Filters, HeaderChange, Mirror, PathChange, Redirect
from mesh.policy.http.path import BadPath, canonical_path
from waypoint.routing.cors import CompiledCors
from waypoint.routing.paths import bad_authority
from waypoint.routing.regex import BadRegex
from waypoint.routing.request import Destination, HeaderEdit, Request

PathEdit = Callable[[str], str]

# Fields that frame a message or belong to one hop (RFC 9110 section 7.6.1), and Host, which URLRewrite is for: changed
# by a filter, they would let a request be read in two ways.
_UNTOUCHABLE = frozenset({"connection", "content-length", "host", "keep-alive", "proxy-connection"})
_UNTOUCHABLE |= {"te", "trailer", "transfer-encoding", "upgrade"}
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_STATUSES = frozenset({301, 302, 303, 307, 308})
NO_FILTERS = Filters()
_WELL_KNOWN = {"http": 80, "https": 443}


class BadFilter(ValueError):
    """The text says which filter cannot be applied and why."""


class CompiledFilters:
    """One rule's or backend's. With an `error` every request that it concerns gets a 500."""

    __slots__ = ("answer", "authority", "cors", "edit", "error", "mirrors", "path", "plain", "redirect")

    def __init__(self, filters: Filters, prefix: str | None) -> None:
        """`prefix` is the path prefix of the match, "" for "/", None when the match is none of a prefix."""
        self.error = filters.error
        self.edit: HeaderEdit | None = None
        self.answer: HeaderEdit | None = None
        self.authority: str | None = None
        self.path: PathEdit | None = None
        self.redirect: CompiledRedirect | None = None
        self.cors: CompiledCors | None = None
        self.mirrors: tuple[tuple[Destination, float], ...] = ()
        try:
            self._compile(filters, prefix)
        except (BadFilter, BadRegex) as error:
            self.error = self.error or str(error)
        self.plain = filters == NO_FILTERS  # nothing to do, which is so for most requests

    def _compile(self, filters: Filters, prefix: str | None) -> None:
        self.edit = compile_headers(filters.request_headers)
        self.answer = compile_headers(filters.response_headers)
        if filters.rewrite is not None:
            self.authority = _checked_host(filters.rewrite.hostname)
            self.path = compile_path(filters.rewrite.path, prefix)
        if filters.redirect is not None:
            self.redirect = CompiledRedirect(filters.redirect, prefix)
        if filters.cors is not None:
            self.cors = CompiledCors(filters.cors)
        # A mirror that has no backend copies to nobody: it may not change what happens to the request.
        self.mirrors = tuple([_mirror(mirror) for mirror in filters.mirrors if not mirror.backend.error])


def change_request(request: Request, first: CompiledFilters, second: CompiledFilters | None = None) -> Request:
    """With the filters of the rule, then those of the backend. Paths are rewritten once: the backend's rewrite wins."""
    headers, authority, path = request.headers, request.authority, request.path
    for filters in (first,) if second is None else (first, second):
        if filters.edit is not None:
            headers = filters.edit(headers)
        if filters.authority is not None:
            authority = filters.authority
        if filters.path is not None:
            path = filters.path(request.path)
    if headers is request.headers and authority is request.authority and path is request.path:
        return request
    return Request(request.method, request.scheme, authority, path, request.query, headers)


def _mirror(mirror: Mirror) -> tuple[Destination, float]:
    if mirror.denominator <= 0 or mirror.numerator < 0:
        raise BadFilter(f"a mirror's share of {mirror.numerator}/{mirror.denominator} is none")
    backend = mirror.backend
    share = min(1.0, mirror.numerator / mirror.denominator)
    return Destination(backend.service, backend.port, backend.protocol), share


# --- headers


def compile_headers(change: HeaderChange | None) -> HeaderEdit | None:
    """`set` replaces, `add` puts one more line, `remove` takes all; of a name given twice the first counts.

    Raises BadFilter for names that a filter may not touch, and for what is no header field.
    """
    if change is None:
        return None
    replaced = _first_of_each(change.set)
    removed = frozenset(_checked_name(name) for name in change.remove)
    lines = [*replaced.items(), *_first_of_each(change.add).items()]
    return HeaderEdit(removed.union(replaced), tuple(line for line in lines if line[0] not in removed))


def _first_of_each(pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    first: dict[str, str] = {}
    for name, value in pairs:
        first.setdefault(_checked_name(name), _checked_value(name, value))
    return first


def _checked_name(name: str) -> str:
    lower = name.lower()
    if _NAME.fullmatch(lower) is None:
        raise BadFilter(f"a filter names the header {name!r}, which is none")
    if lower in _UNTOUCHABLE:
        raise BadFilter(f"a filter may not change the header {name!r}")
    return lower


def _checked_value(name: str, value: str) -> str:
    octets = value.encode("utf-8", "surrogatepass").decode("latin-1").strip(" \t")
    if _BAD_VALUE.search(octets) is not None:
        raise BadFilter(f"a filter's value for the header {name!r} holds a control character")
    return octets


# --- paths


def compile_path(change: PathChange | None, prefix: str | None) -> PathEdit | None:
    """HTTPPathModifier. Raises BadFilter when there is no prefix to replace, or the new path is none."""
    if change is None or (change.full is None and change.prefix is None):
        return None
    if change.full is not None:
        full = _checked_path(change.full)
        return lambda path: full
    if prefix is None:
        raise BadFilter("ReplacePrefixMatch needs a match of type PathPrefix")
    start, length = _checked_path(change.prefix or "").rstrip("/"), len(prefix)
    return lambda path: start + path[length:] or "/"


def _checked_path(path: str) -> str:
    octets = path.encode("utf-8", "surrogatepass").decode("latin-1")
    canonical = canonical_path(octets if octets.startswith("/") else "/" + octets)
    if isinstance(canonical, BadPath):
        raise BadFilter(f"a filter's path cannot be used: {canonical.reason}")
    return canonical


def _checked_host(host: str | None) -> str | None:
    if host is not None and bad_authority(host) is not None:
        raise BadFilter(f"a filter's hostname {host!a} is none")
    return host


# --- redirects


class CompiledRedirect:
    """HTTPRequestRedirectFilter."""

    __slots__ = ("_filter", "_path", "status")

    def __init__(self, redirect: Redirect, prefix: str | None) -> None:
        if redirect.status not in _STATUSES:
            raise BadFilter(f"a redirect cannot have the status {redirect.status}")
        self.status = redirect.status
        _checked_host(redirect.hostname)
        self._filter = redirect
        self._path = compile_path(redirect.path, prefix)

    def location(self, request: Request, port: int) -> str:
        """`port` is the one that the client dialled: it stays unless the filter changes scheme or port."""
        wanted = self._filter
        path = self._path(request.path) if self._path else request.path
        host = wanted.hostname or host_of(request.authority)
        if not host:
            return path + request.query
        scheme = wanted.scheme or request.scheme
        standard = _WELL_KNOWN.get(scheme)
        port = wanted.port or (standard if wanted.scheme and standard else port)
        return f"{scheme}://{host}{'' if port == standard else f':{port}'}{path}{request.query}"


def host_of(authority: str) -> str:
    """An authority without its port; brackets stay."""
    host, colon, port = authority.rpartition(":")
    return authority if not colon or port.endswith("]") else host
