"""What a well-formed request, response or trailer section is (RFC 9113 sections 8.1 to 8.5).

Functions take decoded fields and return one dict, pseudo fields included, or raise Malformed. Fields that recur are
joined as RFC 9110 section 5.3 has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .headers import Field

_is_name = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_is_value = re.compile(r"(?![ \t])[^\x00\r\n]*(?<![ \t])").fullmatch
_is_status = re.compile(r"[1-9][0-9][0-9]").fullmatch
_CONNECTION_SPECIFIC = frozenset({"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"})
_ORDINARY = frozenset({"baggage", "forwarded", "traceparent"})  # what each CONNECT of the mesh has
_REQUEST_PSEUDO = frozenset({":method", ":scheme", ":authority", ":path"})
_RESPONSE_PSEUDO = frozenset({":status"})
_NO_PSEUDO: frozenset[str] = frozenset()


class Malformed(Exception):
    """A message that RFC 9113 section 8.1.1 has to be answered with a stream error PROTOCOL_ERROR."""


def request(fields: Iterable[Field]) -> dict[str, str]:
    """A request of any method; CONNECT has :method and :authority alone (section 8.5)."""
    headers = _collect(fields, _REQUEST_PSEUDO)
    method = headers.get(":method")
    if not method:
        raise Malformed("no :method")
    if method == "CONNECT":
        if ":scheme" in headers or ":path" in headers:
            raise Malformed("CONNECT with :scheme or :path")
        if ":authority" not in headers:
            raise Malformed("CONNECT without :authority")
    else:
        if not headers.get(":scheme") or not headers.get(":path"):
            raise Malformed("no :scheme or :path")
    host, authority = headers.get("host"), headers.get(":authority")
    if host is not None and authority is not None and host.lower() != authority.lower():
        raise Malformed("host differs from :authority")
    return headers


def response(fields: Iterable[Field]) -> dict[str, str]:
    """A response, interim ones included."""
    headers = _collect(fields, _RESPONSE_PSEUDO)
    status = headers.get(":status")
    if status is None or not _is_status(status):
        raise Malformed(f"no status: {status!r}")
    if status == "101":
        raise Malformed("HTTP/2 has no 101")
    return headers


def trailers(fields: Iterable[Field]) -> dict[str, str]:
    return _collect(fields, _NO_PSEUDO)


def content_length(headers: Mapping[str, str]) -> int | None:
    """The length that the body has to have. Raises Malformed."""
    text = headers.get("content-length")
    if text is None:
        return None
    lengths = {part.strip() for part in text.split(",")}
    if len(lengths) > 1 or not (length := lengths.pop()).isascii() or not length.isdigit() or len(length) > 18:
        raise Malformed(f"content-length is {text!r}")
    return int(length)


def _collect(fields: Iterable[Field], pseudo: frozenset[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    regular = False
    for name, value in fields:
        if name.startswith(":"):
            if name not in pseudo:
                raise Malformed(f"{name} does not belong here")
            if regular or name in headers:
                raise Malformed(f"{name} twice or after a regular field")
        else:
            regular = True
            _check_name(name, value)
        # Of printable text only spaces at its ends are wrong; the expression, which knows all, takes ten times as long.
        plain = value.isprintable() and value[:1] != " " and value[-1:] != " "
        if not plain and not _is_value(value):
            raise Malformed(f"the value of {name} has characters that it cannot have")
        if name in headers:
            value = headers[name] + ("; " if name == "cookie" else ", ") + value
        headers[name] = value
    return headers


def _check_name(name: str, value: str) -> None:
    if name in _ORDINARY:
        return
    if not _is_name(name):
        raise Malformed(f"a field is called {name!r}")
    if name in _CONNECTION_SPECIFIC or (name == "te" and value != "trailers"):
        raise Malformed(f"{name} belongs to HTTP/1.1")
