"""One spelling for a path, and the ways in which a server may still read it.

`canonical_path` is what policy, routes and the app all get, so that no two of them read a path differently:

| in the request        | becomes      | why                                                                          |
|-----------------------|--------------|------------------------------------------------------------------------------|
| `%61`, `%2e`, `%7E`   | `a`, `.`, `~`| unreserved characters: the same path by RFC 3986 section 6.2.2.2              |
| `%c3%a9`, raw octets  | `%C3%A9`     | RFC 3986 section 6.2.2.1; raw octets as RFC 3987 section 3.1 maps them        |
| `/a/./b`, `/a/x/../b` | `/a/b`       | RFC 3986 section 6.2.2.3, after the decoding, so that `%2e%2e` counts         |
| `//a///b`             | `/a/b`       | servers merge slashes, policies are written without (Istio MERGE_SLASHES)     |
| `%00`..`%1F`, `%7F`   | refused      | servers cut or trim at control characters                                     |
| `%C0`, `%E0%80`, ...  | refused      | octets that only ever begin an overlong UTF-8 spelling (RFC 3629 section 3)   |
| `%zz`, `%4`           | refused      | not an encoding (RFC 3986 section 2.1), and each server guesses differently   |
| `\\`, `#`, space, raw controls | refused | no part of a path (RFC 3986 section 3.3); some read `/` or the end of it |

What RFC 3986 calls data, but servers by habit do not, goes on as it came: `%2F` and `%5C` (many decode before they
route) and parameters after `;` (servlet containers cut them off, also in `/..;/`). Policy takes care of those: see
`readings`. So an app that puts an encoded slash into a segment still works behind a policy, which Istio's
DECODE_AND_MERGE_SLASHES does not give it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_REFUSED = frozenset(range(0x20)) | {0x7F, 0xC0, 0xC1}
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\#?]|[^\x00-\xff]")
_ESCAPE_OR_OCTET = re.compile(r"%([0-9A-Fa-f]{2})?|[\x80-\xff]")
_OVERLONG = re.compile(r"%E0%[89]|%F0%8|%F8%8[0-7]|%FC%8[0-3]")  # in the canonical spelling
_ODD = re.compile(r'[^!"$&->@-\[\]-~]')  # all but what is printable, and is none of "#", "%", "?" and the backslash


@dataclass(frozen=True, slots=True)
class BadPath:
    """Why a path is refused: one sentence."""

    reason: str


class _Refused(Exception):
    """The text is the reason."""


def canonical_path(path: str) -> str | BadPath:
    """The canonical spelling of an absolute path without its query, octets read as Latin-1. Idempotent."""
    if not path.startswith("/"):
        return BadPath(f"the path {_shown(path)} does not begin with a slash")
    if "//" not in path and "/." not in path and _ODD.search(path) is None:
        return path  # most are canonical as they are
    forbidden = _FORBIDDEN.search(path)
    if forbidden is not None:
        return BadPath(f"the path {_shown(path)} holds {forbidden[0]!a}, which has no place in one")
    try:
        spelled = _ESCAPE_OR_OCTET.sub(_respelled, path)
    except _Refused as refused:
        return BadPath(f"the path {_shown(path)} holds {refused}")
    overlong = _OVERLONG.search(spelled)
    if overlong is not None:
        return BadPath(f"the path {_shown(path)} holds {overlong[0]}.., which is no UTF-8")
    return without_dots(spelled)


def _respelled(found: re.Match[str]) -> str:
    text = found[0]
    if text == "%":
        raise _Refused("a % that encodes nothing")
    octet = int(text[1:], 16) if text[0] == "%" else ord(text)
    if octet in _REFUSED:
        raise _Refused(f"%{octet:02X}, which servers read in more than one way")
    return chr(octet) if octet in _UNRESERVED else f"%{octet:02X}"


def without_dots(path: str) -> str:
    """`path` without "." and ".." segments (RFC 3986 section 5.2.4), then without empty ones; a slash at its end stays.

    In this order, as Envoy has it: to ".." an empty segment is a segment.
    """
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    full = [segment for segment in kept if segment]
    end = "/" if full and (kept[-1] == "" or segments[-1] in (".", "..")) else ""
    return "/" + "/".join(full) + end


# --- what a server may make of it

_DECODED = re.compile(r"%([0-9A-F]{2})")
_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"//+")
_KEPT = frozenset({0x25, 0x2F, 0x5C})  # "%" too, so that two paths never become one


def readings(path: str) -> tuple[str, ...]:
    """What servers may understand by a canonical path, decoded for comparison with a policy; the plain one first.

    With and without the parameters after ";", with encoded slashes and backslashes as data and as slashes, and with
    every order of these steps and of the resolution of dots: at most a few dozen, and only for paths that hold these.
    """
    if "%" not in path and ";" not in path:
        return (path,)
    plain = _decoded(path)
    if "%2F" not in plain and "%5C" not in plain and ";" not in plain:
        return (plain,)
    cut = _decoded(_PARAMETERS.sub("", path))
    found = {plain: None}
    for slashed, cut_first in zip(_slashed(plain), _slashed(cut), strict=True):
        for text in (slashed, cut_first, _PARAMETERS.sub("", slashed)):
            for resolved in (without_dots(text), without_dots(_SLASHES.sub("/", text))):
                found[resolved] = None
                found[without_dots(_PARAMETERS.sub("", resolved))] = None
    return tuple(found)


def _slashed(text: str) -> tuple[str, str, str, str]:
    """None, one or both of what may stand for a slash taken for one."""
    forward, backward = text.replace("%2F", "/"), text.replace("%5C", "/")
    return text, forward, backward, forward.replace("%5C", "/")


def _decoded(path: str) -> str:
    def decode(found: re.Match[str]) -> str:
        octet = int(found[1], 16)
        return found[0] if octet in _KEPT else chr(octet)

    return _DECODED.sub(decode, path)


def pattern_text(literal: str) -> str:
    """The literal part of a policy's path in the spelling of `readings`; what is no path of its own stays a piece."""
    octets = literal.encode("utf-8", "surrogatepass").decode("latin-1").replace("\\", "%5C")
    text = _ANY_ESCAPE.sub(lambda found: _decoded(found[0].upper()), octets)
    return _SLASHES.sub("/", text)


_ANY_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")


def _shown(path: str) -> str:
    return ascii(path if len(path) <= 80 else path[:77] + "...")
