"""The lines of an HTTP/1 head (RFC 9112 sections 2 to 5): one strict grammar for requests, responses and trailers.

What the standard lets a recipient repair (bare LF, folded lines, space before the colon) is refused: whoever repairs it
otherwise than the next server does is how requests are smuggled.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mesh.policy.http.facts import hyphened
from waypoint.channel import Bytes
from waypoint.http.message import ProtocolError
from waypoint.routing.request import Headers

MOST_HEAD = 60 << 10  # bytes: below the smallest window of a stream, so a head can always come as a whole
MOST_FIELDS = 128
KNOWN_NAMES = 1024
_CONTROLS = bytes(octet for octet in (*range(32), 127) if octet != 9)  # all but the tab
_is_token = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_is_sendable_name = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch

# Fields that are about one hop (RFC 9110 section 7.6.1); what Connection names comes on top of them.
HOP = frozenset(
    {"connection", "proxy-connection", "keep-alive", "te", "transfer-encoding", "upgrade", "http2-settings"}
)
# What a head says in values of its own.
FRAMING = frozenset({"host", "content-length"})
CLIENT_CERTIFICATE = "x-forwarded-client-cert"
# What a waypoint answers for. Gateways after CGI's fashion (RFC 3875 section 4.1.18) take "_" for "-".
_GUARDED = HOP | FRAMING | {CLIENT_CERTIFICATE}
# What may not come behind the body, when decisions were taken without it (RFC 9110 section 6.5.1).
_OF_HEADERS = _GUARDED | {
    "age", "authorization", "cache-control", "content-encoding", "content-range", "content-type", "cookie", "expect",
    "forwarded", "location", "max-forwards", "proxy-authenticate", "proxy-authorization", "range", "set-cookie",
    "trailer", "vary", "www-authenticate", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip",
    "x-request-id",
}  # fmt: skip
_names: dict[bytes, str] = {}


def split_head(head: bytes) -> list[bytes]:
    """The lines of a head or trailer section without its empty last line. Raises ProtocolError."""
    lines = head.split(b"\r\n")
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(lines) - 1):
        raise ProtocolError("a control character in the head, or a line that does not end in CR LF")
    if len(lines) > MOST_FIELDS:
        raise ProtocolError(f"more than {MOST_FIELDS} header fields", 431)
    return lines


def parse_fields(lines: Sequence[bytes]) -> list[tuple[str, str]]:
    """Field lines after the first line. Raises ProtocolError."""
    fields = []
    for line in lines:
        name, colon, value = line.partition(b":")
        known = _names.get(name) or _name(name)
        if not colon:
            raise ProtocolError("a header field without a colon")
        fields.append((known, value.strip(b" \t").decode("latin-1")))
    return fields


def _name(name: bytes) -> str:
    if not _is_token(name):
        raise ProtocolError(f"a header field is called {name[:40]!r}")
    if len(_names) >= KNOWN_NAMES:
        _names.clear()
    lower = name.decode("ascii").lower()
    if is_lookalike(lower):
        raise ProtocolError(f"some servers read the header field {lower} as {hyphened(lower)}")
    _names[name] = lower
    return lower


def is_lookalike(name: str) -> bool:
    """Whether a field would pass for one that this proxy checks or sets."""
    return "_" in name and hyphened(name) in _GUARDED


def is_token(text: bytes) -> bool:
    return _is_token(text) is not None


def single(fields: Sequence[tuple[str, str]], name: str) -> str | None:
    """The value of a field that may come once only. Raises ProtocolError."""
    found = [value for key, value in fields if key == name]
    if len(found) > 1:
        raise ProtocolError(f"{name} more than once")
    return found[0] if found else None


def connection_options(fields: Sequence[tuple[str, str]]) -> frozenset[str]:
    """What Connection lists, in lower case."""
    return _options(",".join([value for key, value in fields if key == "connection"]))


def _options(text: str) -> frozenset[str]:
    if not text:
        return frozenset()
    return frozenset(filter(None, (option.strip().lower() for option in text.split(","))))


def end_to_end(fields: Sequence[tuple[str, str]], options: frozenset[str]) -> Headers:
    """What is meant for the other end. `te: trailers` is kept: gRPC demands it, and this proxy passes trailers on."""
    kept = tuple([pair for pair in fields if pair[0] not in HOP and pair[0] not in FRAMING])
    named = options - {"close", "keep-alive", "upgrade", "te"}
    if named:
        kept = tuple([pair for pair in kept if pair[0] not in named])
    if any(name == "te" and "trailers" in value.lower() for name, value in fields):
        kept += (("te", "trailers"),)
    return kept


def trailer_fields(fields: Sequence[tuple[str, str]]) -> Headers:
    """Without those that would change how the message is read, routed or judged."""
    return tuple([pair for pair in fields if hyphened(pair[0]) not in _OF_HEADERS])


def content_length(fields: Sequence[tuple[str, str]]) -> int | None:
    """Raises ProtocolError: also for a list of equal lengths, which some read and some do not."""
    text = single(fields, "content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ProtocolError("content-length is not a number")
    return int(text)


def is_chunked(fields: Sequence[tuple[str, str]]) -> bool:
    """Whether the body comes in chunks: the only transfer coding there is here. Raises ProtocolError."""
    text = single(fields, "transfer-encoding")
    if text is None:
        return False
    if text.lower() != "chunked":
        raise ProtocolError("a transfer-encoding other than chunked", 501)
    return True


def write_head(first: str, headers: Headers, extra: str = "") -> bytes:
    """A whole head. `extra`: further lines, each with its CR LF. Raises ValueError for what no head can carry."""
    text = "".join([first, "\r\n", *[f"{name}: {value}\r\n" for name, value in headers], extra, "\r\n"])
    octets = text.encode("latin-1")
    if len(octets) - len(octets.translate(None, _CONTROLS)) != 2 * octets.count(b"\r\n"):
        raise ValueError("a header field with a control character")
    if octets.count(b"\r\n") != len(headers) + 2 + extra.count("\r\n"):
        raise ValueError("a header field with a line break")
    return octets


def write_body(data: Bytes, chunked: bool) -> tuple[Bytes, ...]:
    """Pieces to send one after the other: large ones are not copied."""
    return (b"%x\r\n" % len(data), data, b"\r\n") if chunked else (data,)


def write_trailers(trailers: Headers) -> bytes:
    """The last chunk, and what follows it."""
    fields = [(name, value) for name, value in trailers if _is_sendable_name(name)]
    return write_head("0", tuple(fields))
