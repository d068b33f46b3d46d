"""Answers of the waypoint's own."""

from __future__ import annotations

from urllib.parse import quote

from waypoint.http.message import Responder, ResponseHead
from waypoint.routing.request import Reply

_SAFE = "".join(chr(octet) for octet in range(0x20, 0x7F) if chr(octet) != "%")  # gRPC's PROTOCOL-HTTP2.md


def send_reply(responder: Responder, reply: Reply) -> int:
    """How many bytes of body it has."""
    if reply.grpc is not None:
        status = (
            ("content-type", "application/grpc"),
            ("grpc-status", str(reply.grpc)),
            ("grpc-message", quote(reply.reason, safe=_SAFE)),
        )
        responder.respond(ResponseHead(200, (*reply.headers, *status)), ended=True)
        return 0
    body = f"{reply.reason}\n".encode() if reply.status >= 400 else b""
    kind = (("content-type", "text/plain; charset=utf-8"),) if body else ()
    head = ResponseHead(reply.status, (*reply.headers, *kind), len(body) or None)
    responder.respond(head, ended=not body)
    if body:
        responder.write(body)
        responder.finish()
    return len(body)
