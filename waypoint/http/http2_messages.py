"""What a well-formed HTTP/2 message is (RFC 9113 section 8), as the values of `message`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from mesh.hbone.headers import Field, Fields
from mesh.hbone.messages import Malformed
from mesh.policy.http.facts import hyphened
from waypoint.http.fields import MOST_FIELDS, is_lookalike, trailer_fields
from waypoint.http.message import UNKNOWN_LENGTH, RequestHead, ResponseHead
from waypoint.routing.request import Headers

_is_name = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_is_method = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_value = re.compile(r"(?![ \t])[^\x00-\x08\x0a-\x1f\x7f]*(?<![ \t])").fullmatch
_is_status = re.compile(r"[1-9][0-9][0-9]").fullmatch
_HOP = frozenset({"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"})
_REQUEST_PSEUDO = frozenset({":method", ":scheme", ":authority", ":path"})
_RESPONSE_PSEUDO = frozenset({":status"})
_NO_PSEUDO: frozenset[str] = frozenset()
MOST_REMEMBERED = 256  # characters of a field that is remembered as well-formed


def parse_request(fields: Fields, ended: bool) -> RequestHead:
    """Raises Malformed, which is a stream error. CONNECT is as it came: with an authority and no path."""
    pseudo, headers, framing = _split(fields, _REQUEST_PSEUDO)
    method, path, scheme = pseudo.get(":method", ""), pseudo.get(":path", ""), pseudo.get(":scheme", "")
    authority = pseudo.get(":authority", "")
    if not _is_method(method):
        raise Malformed("no :method")
    if method == "CONNECT":
        if path or scheme or not authority:
            raise Malformed("CONNECT with :scheme or :path, or without :authority")
    elif not (path.startswith("/") or path == "*") or scheme not in ("http", "https"):
        raise Malformed("no :path that begins with a slash, or no :scheme of HTTP")  # RFC 9113 section 8.3.1
    host = framing.get("host")
    length = _length(framing, ended, UNKNOWN_LENGTH)
    return RequestHead(
        method, path or authority, authority or host or "", headers, 0 if ended else length, host, version="HTTP/2"
    )


def parse_response(fields: Fields, ended: bool) -> ResponseHead:
    """Raises Malformed. A length where there is no body (HEAD, 304) is kept."""
    pseudo, headers, framing = _split(fields, _RESPONSE_PSEUDO)
    status = pseudo.get(":status", "")
    if not _is_status(status) or status == "101":
        raise Malformed(f"the status is {status!r}")
    length = framing.get("content-length")
    if length is not None and not (length.isascii() and length.isdigit() and len(length) <= 18):
        raise Malformed("content-length is not a number")
    return ResponseHead(int(status), headers, None if length is None else int(length))


def parse_trailers(fields: Fields) -> Headers:
    """Raises Malformed. What frames a message is left out."""
    return trailer_fields(_split(fields, _NO_PSEUDO)[1])


def _length(framing: dict[str, str], ended: bool, default: int) -> int:
    text = framing.get("content-length")
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Malformed("content-length is not a number")
    if ended and int(text):
        raise Malformed("no body where content-length promises one")
    return int(text)


def _split(fields: Fields, known: frozenset[str]) -> tuple[dict[str, str], Headers, dict[str, str]]:
    """Pseudo fields, fields, and those that frame the message."""
    if len(fields) > MOST_FIELDS:
        raise Malformed(f"more than {MOST_FIELDS} fields")
    pseudo: dict[str, str] = {}
    framing: dict[str, str] = {}
    headers: list[Field] = []
    for field in fields:
        name, value = field
        if name[:1] == ":":
            if name not in known or name in pseudo or headers or framing or not _is_value(value):
                raise Malformed(f"{name[:40]} does not belong here")
            pseudo[name] = value
            continue
        field = _checked(name, value) if len(name) + len(value) <= MOST_REMEMBERED else _check(name, value)
        if name == "content-length" or name == "host":
            if name in framing:
                raise Malformed(f"{name} twice")
            framing[name] = value
        else:
            headers.append(field)
    return pseudo, _cookies(headers), framing


def _check(name: str, value: str) -> Field:
    """The field with its octets read as Latin-1. Raises Malformed."""
    if not _is_name(name):
        raise Malformed(f"a field is called {name[:40]!r}")
    if not _is_value(value):
        raise Malformed(f"the value of {name} has characters that it cannot have")
    if name in _HOP or (name == "te" and value != "trailers"):
        raise Malformed(f"{name} belongs to HTTP/1.1")
    if is_lookalike(name):
        raise Malformed(f"some servers read the field {name} as {hyphened(name)}")
    return name, value if value.isascii() else value.encode().decode("latin-1")


_checked = lru_cache(maxsize=1024)(_check)  # the same fields come with every request of a client


def _cookies(headers: list[Field]) -> Headers:
    """Crumbs of Cookie are one field again for whoever is behind HTTP/1 (RFC 9113 section 8.2.3)."""
    crumbs = [value for name, value in headers if name == "cookie"]
    if len(crumbs) < 2:
        return tuple(headers)
    return (*(field for field in headers if field[0] != "cookie"), ("cookie", "; ".join(crumbs)))


def request_fields(head: RequestHead) -> list[Field]:
    fields = [
        (":method", head.method),
        (":scheme", head.scheme),
        (":authority", head.authority),
        (":path", head.target),
    ]
    if head.length > 0:
        fields.append(("content-length", str(head.length)))
    return [*fields, *sendable(head.headers)]


def response_fields(head: ResponseHead) -> list[Field]:
    fields = [(":status", str(head.status))]
    if head.length is not None:
        fields.append(("content-length", str(head.length)))
    return [*fields, *sendable(head.headers)]


def sendable(headers: Iterable[Field]) -> list[Field]:
    """Octets as the header encoder takes them: UTF-8, and no tabs."""
    return [
        (name, value) if value.isascii() and "\t" not in value else (name, _octets(value)) for name, value in headers
    ]


def _octets(value: str) -> str:
    return value.replace("\t", " ").strip(" ").encode("latin-1", "replace").decode("utf-8", "replace")
