"""Heads of HTTP/1 messages: bytes to values, with every ambiguity about where a message ends refused (RFC 9112 6.3)."""

from __future__ import annotations

import re

from waypoint.http.fields import (
    connection_options,
    content_length,
    end_to_end,
    is_chunked,
    is_token,
    parse_fields,
    single,
    split_head,
    write_head,
)
from waypoint.http.message import UNKNOWN_LENGTH, ProtocolError, RequestHead, ResponseHead

_VERSIONS = {b"HTTP/1.1": "HTTP/1.1", b"HTTP/1.0": "HTTP/1.0"}
_status_line = re.compile(rb"(HTTP/1\.[01]) ([1-9][0-9][0-9])(?: (.*))?").fullmatch
_CONTINUE = "100-continue"


def parse_request(head: bytes) -> tuple[RequestHead, bool]:
    """A request without its empty line, and whether the connection goes on after it. Raises ProtocolError."""
    lines = split_head(head)
    words = lines[0].split(b" ")
    if len(words) != 3 or not is_token(words[0]) or not words[1]:
        raise ProtocolError("the request line is not METHOD TARGET HTTP/1.1")
    version = _VERSIONS.get(words[2])
    if version is None:
        raise ProtocolError("not a version of HTTP/1", 505)
    fields = parse_fields(lines[1:])
    options = connection_options(fields)
    host = single(fields, "host")
    if host is None and version == "HTTP/1.1":
        raise ProtocolError("no Host")
    keep = "close" not in options if version == "HTTP/1.1" else "keep-alive" in options
    request = RequestHead(
        words[0].decode("ascii"),
        words[1].decode("latin-1"),
        host or "",
        end_to_end(fields, options),
        _request_length(fields, version),
        version=version,
        upgrade=_upgrade(fields, options, version),
    )
    if version == "HTTP/1.1" and request.length and any(name == "expect" for name, _ in request.headers):
        request.expects_continue = (single(fields, "expect") or "").lower() == _CONTINUE
    return request, keep


def _request_length(fields: list[tuple[str, str]], version: str) -> int:
    length = content_length(fields)
    if not is_chunked(fields):
        return length or 0
    if length is not None:
        raise ProtocolError("both content-length and transfer-encoding")
    if version == "HTTP/1.0":
        raise ProtocolError("transfer-encoding in HTTP/1.0")
    return UNKNOWN_LENGTH


def _upgrade(fields: list[tuple[str, str]], options: frozenset[str], version: str) -> str:
    """What the client offers to go on with; h2c is not taken up (RFC 9113 section 3.1)."""
    if "upgrade" not in options or version != "HTTP/1.1":
        return ""
    wanted = single(fields, "upgrade") or ""
    return "" if wanted.lower() == "h2c" else wanted


def parse_response(head: bytes) -> tuple[ResponseHead, bool, bool]:
    """A response without its empty line, whether the connection goes on after it, and whether it has chunks. Raises
    ProtocolError."""
    lines = split_head(head)
    found = _status_line(lines[0])
    if found is None:
        raise ProtocolError("the status line is not HTTP/1.1 STATUS REASON")
    fields = parse_fields(lines[1:])
    options = connection_options(fields)
    length, chunked = content_length(fields), is_chunked(fields)
    if chunked and length is not None:
        raise ProtocolError("both content-length and transfer-encoding")
    status = int(found[2])
    keep = "close" not in options if found[1] == b"HTTP/1.1" else "keep-alive" in options
    response = ResponseHead(status, end_to_end(fields, options), length, (found[3] or b"").decode("latin-1"))
    if status == 101:
        response.upgrade = single(fields, "upgrade") or ""
    return response, keep, chunked


def write_request(head: RequestHead) -> bytes:
    """Raises ValueError."""
    extra = f"host: {head.authority}\r\n"
    if head.length == UNKNOWN_LENGTH:
        extra += "transfer-encoding: chunked\r\n"
    elif head.length or head.method in ("POST", "PUT", "PATCH"):
        extra += f"content-length: {head.length}\r\n"
    if head.upgrade:
        extra += f"connection: upgrade\r\nupgrade: {head.upgrade}\r\n"
    elif any(name == "te" for name, _ in head.headers):
        extra += "connection: te\r\n"
    return write_head(f"{head.method} {head.target} HTTP/1.1", head.headers, extra)


def write_response(head: ResponseHead, version: str, extra: str) -> bytes:
    """`extra`: the lines about framing and connection. Raises ValueError."""
    reason = head.reason or PHRASES.get(head.status, "")
    return write_head(f"HTTP/1.1 {head.status} {reason}", head.headers, extra)


PHRASES = {
    100: "Continue", 101: "Switching Protocols", 103: "Early Hints", 200: "OK", 201: "Created", 202: "Accepted",
    204: "No Content", 206: "Partial Content", 301: "Moved Permanently", 302: "Found", 303: "See Other",
    304: "Not Modified", 307: "Temporary Redirect", 308: "Permanent Redirect", 400: "Bad Request",
    401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 408: "Request Timeout", 413: "Content Too Large",
    421: "Misdirected Request", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip
