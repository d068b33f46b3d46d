"""The controller's one door for ztunnels and waypoints: discovery and certificates, gRPC over TLS on port 15012."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

import grpc
import grpc.aio

from controller.authority.authentication import Authenticator, WaypointOf
from controller.authority.authority import Authority
from controller.authority.errors import AuthorityError
from controller.authority.service import CertificateService, RunsOnNode
from controller.authority.serving import ServingCertificate, ServingCertificates
from controller.publish.discovery import DiscoveryService
from controller.publish.publisher import Publisher
from mesh.model.address import SocketAddress
from mesh.wire.services import MAX_MESSAGE_BYTES

log = logging.getLogger("publish")

# A client that comes back claims every resource it holds: about 60 bytes each.
_MAX_REQUEST_BYTES = 64 << 20
_MAX_CALLS = 20_000  # streams and requests at once, of all nodes together
_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", _MAX_REQUEST_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second controller on the port is a mistake, not a partner
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # ztunnels ping every 30 s
    # A stream is authenticated when it begins: ending it now and then makes an expired credential worthless.
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
]
_STOP_SECONDS = 2.0  # for certificate requests under way


class ListenError(Exception):
    """The address cannot be listened on."""


class Server:
    """`start` and `stop` once each, on the event loop that the publisher is used on."""

    def __init__(
        self,
        listen: SocketAddress,
        discovery: DiscoveryService,
        certificates: CertificateService,
        tls: ServingCertificates,
    ) -> None:
        self._listen = listen
        self._discovery = discovery
        self._tls = tls
        self._presented: ServingCertificate | None = None
        self._server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=_MAX_CALLS)
        self._server.add_generic_rpc_handlers((discovery.handler(), certificates.handler()))

    async def start(self) -> SocketAddress:
        """The address that is listened on, its port chosen if it was 0. Raises ListenError."""
        first = self._certificate()
        assert first is not None
        # The stubs do not know that None means "as before".
        credentials = grpc.dynamic_ssl_server_credentials(first, self._certificate)  # type: ignore[arg-type]
        try:
            port = self._server.add_secure_port(str(self._listen), credentials)
        except RuntimeError as error:
            raise ListenError(
                f"cannot listen on {self._listen}: the address is in use or not this machine's"
            ) from error
        await self._server.start()
        return SocketAddress(self._listen.ip, port)

    async def stop(self) -> None:
        self._discovery.stop()
        await self._server.stop(_STOP_SECONDS)

    def _certificate(self) -> grpc.ServerCertificateConfiguration | None:
        """For gRPC, before each handshake: the certificate to present, None for the same as before."""
        try:
            current = self._tls.at(datetime.now(UTC))
        except AuthorityError as error:
            if self._presented is None:
                raise
            log.error("the serving certificate cannot be renewed: %s", error)
            return None
        if current is self._presented:
            return None
        self._presented = current
        return grpc.ssl_server_certificate_configuration([(current.private_key, current.chain)])


def serve(
    listen: SocketAddress,
    publisher: Publisher,
    authority: Authority,
    authenticator: Authenticator,
    runs_on_node: RunsOnNode,
    waypoint_of: WaypointOf,
    names: Sequence[str],
) -> Server:
    """A server that is still to be started. `names` are the DNS names and addresses in its certificate."""
    return Server(
        listen,
        DiscoveryService(publisher, authenticator, waypoint_of),
        CertificateService(authority, authenticator, runs_on_node, waypoint_of),
        ServingCertificates(authority, [*names, listen.ip]),
    )
