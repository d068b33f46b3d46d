"""A small gRPC client on the waypoint's own HTTP/2: one call per connection (gRPC: PROTOCOL-HTTP2.md).

The gRPC library would cost more memory than all the rest of an idle waypoint.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from urllib.parse import unquote

from mesh.runtime.control_plane import Control, ControlError, metadata, roots
from mesh.wire.services import MAX_MESSAGE_BYTES
from waypoint.channel import Channel
from waypoint.http.http2_client import Http2Client, Http2Request
from waypoint.http.message import UNKNOWN_LENGTH, RequestHead, ResponseHead
from waypoint.routing.request import Headers
from waypoint.tcp import TcpChannel

CONNECT_TIMEOUT = 5.0  # seconds for TCP and TLS, as Istio's ztunnel
KEEPALIVE = (30, 10, 3)  # seconds of silence, seconds between probes, probes: a vanished server is known in a minute
_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)  # by number


class Call:
    """One call of any kind. `message` gets each response; `done` ends when the call has, as it should or with
    ControlError."""

    def __init__(self, loop: asyncio.AbstractEventLoop, message: Callable[[bytes], None]) -> None:
        self._message = message
        self._buffer = bytearray()
        self._headers: Headers = ()
        self._request: Http2Request | None = None
        self._client: Http2Client | None = None
        self.done: asyncio.Future[None] = loop.create_future()

    def begin(self, client: Http2Client, request: Http2Request) -> None:
        self._client, self._request = client, request

    def send(self, message: bytes) -> None:
        if self._request is not None and not self.done.done():
            self._request.write(b"\0" + len(message).to_bytes(4, "big") + message)

    def finish(self) -> None:
        """No more messages of ours."""
        if self._request is not None:
            self._request.finish()

    def close(self) -> None:
        if self._request is not None:
            self._request.cancel()
        if self._client is not None:
            self._client.drain()
        if not self.done.done():
            self.done.cancel()

    # --- message.ResponseUser

    def interim(self, status: int, headers: Headers) -> None: ...

    def response(self, head: ResponseHead) -> None:
        self._headers = head.headers
        if head.status != 200:
            self._fail(f"the server answers HTTP {head.status}")

    def response_body(self, pieces: list[memoryview]) -> None:
        for piece in pieces:
            self._buffer += piece
            if self._request is not None:
                self._request.acknowledge(len(piece))
        while len(self._buffer) >= 5 and not self.done.done():
            size = int.from_bytes(self._buffer[1:5], "big")
            if self._buffer[0] or size > MAX_MESSAGE_BYTES:
                self._fail("the server sends a message that is compressed or too large")
                return
            if len(self._buffer) < 5 + size:
                return
            message = bytes(self._buffer[5 : 5 + size])
            del self._buffer[: 5 + size]
            self._message(message)

    def response_ended(self, trailers: Headers) -> None:
        fields = dict((*self._headers, *trailers))
        status = fields.get("grpc-status", "2")
        if status == "0":
            if not self.done.done():
                self.done.set_result(None)
            return
        name = _CODES[int(status)] if status.isdigit() and int(status) < len(_CODES) else status
        self._fail(f"{name}: {unquote(fields.get('grpc-message', ''))}".rstrip(": "))

    def response_failed(self, reason: str, reached: bool) -> None:
        self._fail(f"UNAVAILABLE: {reason}")

    def server_drained(self) -> None: ...

    def upgraded(self, head: ResponseHead, channel: Channel, early: bytes) -> None: ...

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(ControlError(reason))


async def call(control: Control, path: str, cluster: str, message: Callable[[bytes], None]) -> Call:
    """Opens a connection and a call on it. Raises ControlError."""
    loop = asyncio.get_running_loop()
    headers = (
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "ambit-waypoint"),
        *((name.lower(), value) for name, value in metadata(control, cluster)),
    )
    client = Http2Client(loop, await _connect(control), lambda _: None, lambda _: None)
    head = RequestHead("POST", path, control.address, headers, UNKNOWN_LENGTH, version="HTTP/2", scheme="https")
    opened = Call(loop, message)
    opened.begin(client, client.open(head, opened))
    return opened


async def _connect(control: Control) -> Channel:
    host, _, port = control.address.rpartition(":")
    host = host.strip("[]")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, channel = await asyncio.get_running_loop().create_connection(
                TcpChannel, host, int(port), ssl=_context(control), server_hostname=control.alternative_name or host
            )
    except TimeoutError:
        raise ControlError(f"UNAVAILABLE: cannot connect to {control.address}: timed out") from None
    except (OSError, ssl.SSLError) as error:
        raise ControlError(f"UNAVAILABLE: cannot connect to {control.address}: {error.strerror or error}") from None
    _keep_alive(channel.socket)
    return channel


def _context(control: Control) -> ssl.SSLContext:
    """Reads the roots anew. Raises ControlError."""
    trusted = roots(control)
    try:
        context = ssl.create_default_context(cadata=trusted.decode() if trusted else None)
    except (ssl.SSLError, ValueError) as error:
        raise ControlError(f"the root certificate {control.root} cannot be used: {error}") from None
    context.set_alpn_protocols(["h2"])
    return context


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in zip((socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), KEEPALIVE, strict=True):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
