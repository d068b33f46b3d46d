"""Requests and responses as values, and the two seams of an exchange: towards its client and towards its server.

Octets of fields are read as Latin-1, so that all of them survive. `headers` are those of the message itself: names in
lower case, without fields of one hop (RFC 9110 section 7.6.1), without Host and Content-Length, which are values here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from waypoint.channel import Bytes, Channel
from waypoint.routing.request import Headers

UNKNOWN_LENGTH = -1  # there is a body; its end is marked as the protocol marks it


@dataclass(slots=True)
class RequestHead:
    method: str
    target: str  # as it came: see waypoint.routing.paths.read_target
    authority: str
    headers: Headers
    length: int = 0  # of the body in bytes, or UNKNOWN_LENGTH; 0 is no body
    host: str | None = None  # HTTP/2: the Host field, if it came besides :authority
    version: str = "HTTP/1.1"
    upgrade: str = ""  # the protocol that the client wants to go on with on this connection
    expects_continue: bool = False
    scheme: str = "http"  # of what is sent: inside a tunnel there is no other


@dataclass(slots=True)
class ResponseHead:
    status: int
    headers: Headers
    length: int | None = None  # None: no Content-Length
    reason: str = ""  # HTTP/1's phrase
    upgrade: str = ""  # with status 101
    ended: bool = False  # as received: nothing follows it. gRPC tells this from an empty body


class ProtocolError(Exception):
    """The peer broke HTTP: what is answered, and why."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Responder(Protocol):
    """How a request is answered. Calls after the end, or after the client has gone, do nothing."""

    @property
    def congested(self) -> bool: ...

    def interim(self, status: int, headers: Headers) -> None:
        """1xx but 101."""

    def respond(self, head: ResponseHead, ended: bool) -> None:
        """The final head. `ended`: there is no body."""

    def write(self, data: Bytes) -> None: ...

    def finish(self, trailers: Headers = ()) -> None: ...

    def abort(self, reason: str) -> None:
        """The response cannot be completed: the client sees that it is broken off."""

    def acknowledge(self, size: int) -> None:
        """So much of the request's body is not held any more."""

    def upgrade(self, head: ResponseHead) -> Channel:
        """101: what follows is the connection's own bytes."""


class Exchange(Protocol):
    """Who serves a request: gets what follows its head."""

    def request_body(self, pieces: list[memoryview]) -> None: ...

    def request_ended(self, trailers: Headers) -> None: ...

    def client_lost(self, reason: str) -> None:
        """The client does not want (all of) the answer any more."""

    def client_drained(self) -> None:
        """Not congested any more."""


class Requester(Protocol):
    """How a request is sent on. The head has been said when it was opened."""

    @property
    def congested(self) -> bool: ...

    def write(self, data: Bytes) -> None: ...

    def finish(self, trailers: Headers = ()) -> None: ...

    def cancel(self) -> None:
        """Nothing more is heard of it."""

    def acknowledge(self, size: int) -> None:
        """So much of the response's body is not held any more."""


class ResponseUser(Protocol):
    """Who waits for a response."""

    def interim(self, status: int, headers: Headers) -> None: ...

    def response(self, head: ResponseHead) -> None: ...

    def response_body(self, pieces: list[memoryview]) -> None: ...

    def response_ended(self, trailers: Headers) -> None: ...

    def response_failed(self, reason: str, reached: bool) -> None:
        """`reached`: the server may have seen the request."""

    def server_drained(self) -> None: ...

    def upgraded(self, head: ResponseHead, channel: Channel, early: bytes) -> None:
        """101: what follows is the connection's own bytes, of which `early` have come and are not acknowledged."""
