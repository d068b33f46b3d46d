"""Responses of the waypoint's own, in the form that the client's protocol has for them."""

from __future__ import annotations

from waypoint.routing.request import Headers, Reply, Request

# gRPC's doc/http-grpc-status-mapping.md. A 500 is a backend that cannot be had, which GRPCRoute calls UNAVAILABLE.
UNKNOWN, PERMISSION_DENIED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 2, 7, 12, 13, 14, 16
_GRPC_STATUS = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    500: UNAVAILABLE,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}


def local_reply(request: Request, status: int, reason: str, *, route: str = "", rule: str = "") -> Reply:
    """An error of the waypoint: `status`, or for a gRPC request the code that a gRPC client would make of it."""
    grpc = _GRPC_STATUS.get(status, UNKNOWN) if is_grpc(request.headers) else None
    return Reply(status, reason, grpc=grpc, route=route, rule=rule)


def denied(request: Request) -> Reply:
    """Clients are not told why; the access log is."""
    return local_reply(request, 403, "RBAC: access denied")


def is_grpc(headers: Headers) -> bool:
    """gRPC over HTTP/2, PROTOCOL-HTTP2.md: "application/grpc" with an optional "+proto", "+json", ..."""
    for name, value in headers:
        if name == "content-type":
            return value == "application/grpc" or value.startswith(("application/grpc+", "application/grpc;"))
    return False
