"""The target of a request, read once: policy, routes and the app all get this reading (RFC 9112 section 3.2).

Paths: see `mesh.policy.http.path`. Of the four forms of a target:

| form                    | read as                                                                               |
|-------------------------|---------------------------------------------------------------------------------------|
| origin `/path?query`    | as it is                                                                              |
| absolute `http://h/p`   | its own authority counts, Host does not (RFC 9112 section 3.2.2), and is all the app gets |
| asterisk `*`            | with OPTIONS only: path "*", which no path of a route or policy matches, but "*" itself |
| authority `h:443`       | 501, as CONNECT with any target: who answers it with 2xx makes a tunnel (RFC 9110 9.3.6)   |

In HTTP/2 a Host that differs from :authority is refused (RFC 9113 section 8.3.1).
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

from mesh.policy.http.path import BadPath, canonical_path


class Target(Struct, frozen=True):
    """Where a request goes. `query` has its "?"; `authority` is "" only when the request names none (HTTP/1.0)."""

    authority: str
    path: str
    query: str = ""


class BadTarget(Struct, frozen=True):
    """Why a request is refused, and with which status."""

    reason: str
    status: int = 400


# A name or an address, and a port. Narrower than RFC 3986: without user information (RFC 9110 section 4.2.4), and
# without percent-encoding and sub-delimiters, which no host has and parsers disagree about.
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_ABSOLUTE = re.compile(r"(?i:https?)://([^/?#]*)(.*)", re.DOTALL)
# Octets that may not be in a query either (RFC 3986 section 3.4); the rest of it is data, and goes on as it came.
_BAD_IN_QUERY = re.compile(r"[\x00-\x20\x7f#]|[^\x00-\xff]")


def normalise(target: str) -> tuple[str, str] | BadPath:
    """Canonical path and query ("" or with its "?") of a target in origin form. Idempotent on path + query."""
    path, mark, query = target.partition("?")
    if mark:
        bad = _BAD_IN_QUERY.search(query)
        if bad is not None:
            return BadPath(f"the query holds {bad[0]!a}, which has no place in one")
    canonical = canonical_path(path)
    return canonical if isinstance(canonical, BadPath) else (canonical, mark + query)


def read_target(method: str, target: str, authority: str, host: str | None = None) -> Target | BadTarget:
    """`authority` is Host of HTTP/1, or :authority of HTTP/2 (there `host` is the Host field, if it came as well)."""
    if method == "CONNECT":
        return BadTarget("CONNECT is not served here", 501)
    if target.startswith("/"):
        return _read(authority, target, host)
    if target == "*":
        return _read_asterisk(method, authority, host)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        return BadTarget("the request target is neither a path nor an http or https URI")
    own, rest = absolute.groups()
    if not own:
        return BadTarget("the URI of the request target names no host")
    if not rest and method == "OPTIONS":  # RFC 9112 section 3.2.4
        return _read_asterisk(method, own, None)
    return _read(own, rest if rest.startswith("/") else "/" + rest, None)


def _read(authority: str, target: str, host: str | None) -> Target | BadTarget:
    bad = bad_authority(authority, host)
    if bad is not None:
        return bad
    parts = normalise(target)
    return BadTarget(parts.reason) if isinstance(parts, BadPath) else Target(authority, *parts)


def _read_asterisk(method: str, authority: str, host: str | None) -> Target | BadTarget:
    if method != "OPTIONS":
        return BadTarget(f'the target "*" is for OPTIONS, not for {method[:20]!a}')
    return bad_authority(authority, host) or Target(authority, "*")


@lru_cache(maxsize=256)  # the names of the services behind a waypoint, over and over
def bad_authority(authority: str, host: str | None = None) -> BadTarget | None:
    """Why an authority is none, or is not that of the Host field. None when it may go on."""
    if host is not None and host.lower() != authority.lower():
        return BadTarget("Host and :authority name different hosts")
    if authority == "":
        return None
    found = _AUTHORITY.fullmatch(authority)
    if found is None or (found[1] is not None and not 0 < int(found[1]) < 65536):
        return BadTarget(f"{authority[:80]!a} is not a host with an optional port")
    return None
