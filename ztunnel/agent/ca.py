"""Asks the CA for the certificate of an identity that runs on this node (Istio: citadel.proto, node impersonation)."""

from __future__ import annotations

import asyncio

import grpc.aio
from google.protobuf.struct_pb2 import Struct

from mesh.identity.credential import Credential, issued_credential
from mesh.identity.csr import CertificateRequest, request_certificate
from mesh.model.identity import SpiffeId
from mesh.runtime.control_plane import Control, ControlError, metadata, roots
from mesh.wire.generated import ca_pb2
from mesh.wire.services import CREATE_CERTIFICATE_PATH, IMPERSONATED_IDENTITY
from ztunnel.agent import control

DEADLINE = 10.0  # seconds for one request: a CA that hangs must not hold up a renewal


class CertificateAuthority:
    """One channel for all requests, opened anew when the root certificate has changed."""

    def __init__(self, settings: Control, cluster_id: str, ttl: float) -> None:
        self._settings = settings
        self._cluster_id = cluster_id
        self._ttl = ttl
        self._roots: bytes | None = None
        self._channel: grpc.aio.Channel | None = None
        self._closing: asyncio.Task[None] | None = None

    async def issue(self, identity: SpiffeId) -> Credential:
        """A new key and its certificate. Raises ControlError."""
        request = request_certificate(identity)
        response = await self._create(request, identity)
        try:
            return issued_credential(identity, request.private_key, response.cert_chain)
        except ValueError as error:
            raise ControlError(str(error)) from error

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close(None)

    async def _create(self, request: CertificateRequest, identity: SpiffeId) -> ca_pb2.IstioCertificateResponse:
        if not self._settings.address:
            raise ControlError("there is no CA: CA_ADDRESS is empty")
        channel = await self._open()
        method = channel.unary_unary(
            CREATE_CERTIFICATE_PATH,
            request_serializer=ca_pb2.IstioCertificateRequest.SerializeToString,
            response_deserializer=ca_pb2.IstioCertificateResponse.FromString,
        )
        impersonated = Struct()
        impersonated.update({IMPERSONATED_IDENTITY: str(identity)})
        message = ca_pb2.IstioCertificateRequest(
            csr=request.csr.decode(), validity_duration=max(1, int(self._ttl)), metadata=impersonated
        )
        call_metadata = metadata(self._settings, self._cluster_id)
        try:
            response: ca_pb2.IstioCertificateResponse = await method(message, timeout=DEADLINE, metadata=call_metadata)
        except grpc.aio.AioRpcError as error:
            raise ControlError(f"the CA at {self._settings.address} says {control.describe(error)}") from error
        return response

    async def _open(self) -> grpc.aio.Channel:
        trusted = roots(self._settings)
        if self._channel is not None and trusted == self._roots:
            return self._channel
        old, self._channel, self._roots = self._channel, control.open_channel(self._settings), trusted
        if old is not None:  # other requests may still be on it
            self._closing = asyncio.get_running_loop().create_task(old.close(DEADLINE))
        return self._channel
