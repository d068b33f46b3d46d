"""istio.v1.auth.IstioCertificateService: a node's ztunnel asks for the certificate of a service account.

It gets one only for an account of a pod that runs on its node now, so a stolen node credential is worth no more than
that node's pods. A waypoint's pod gets one for its own account, and no other pod gets any. Answers say enough for an
operator to act; what the controller knows stays in its log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import grpc
import grpc.aio

from controller.authority.authentication import Authenticator, Caller, PodIdentity, WaypointOf, bearer_token
from controller.authority.authority import Authority
from controller.authority.errors import AuthorityError, RequestRefused, Unauthenticated, Undecided
from mesh.model.identity import SpiffeId
from mesh.wire.generated.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from mesh.wire.services import CERTIFICATE_SERVICE, CREATE_CERTIFICATE_METHOD, IMPERSONATED_IDENTITY

RunsOnNode = Callable[[str, str, str], bool]
"""(node, namespace, service account): whether a pod of that account, not ended, is on that node now."""

Context: TypeAlias = "grpc.aio.ServicerContext[IstioCertificateRequest, IstioCertificateResponse]"

log = logging.getLogger("authority")

_MAX_SECONDS = 10**9  # larger wishes mean the same (the authority caps them), and would not fit a timedelta


class _Refusal(Exception):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


class CertificateService:
    """The gRPC side of an Authority."""

    def __init__(
        self, authority: Authority, authenticator: Authenticator, runs_on_node: RunsOnNode, waypoint_of: WaypointOf
    ) -> None:
        self._authority = authority
        self._authenticator = authenticator
        self._runs_on_node = runs_on_node
        self._waypoint_of = waypoint_of

    def handler(self) -> grpc.GenericRpcHandler[IstioCertificateRequest, IstioCertificateResponse]:
        method = grpc.unary_unary_rpc_method_handler(
            self._create_certificate,
            request_deserializer=IstioCertificateRequest.FromString,
            response_serializer=IstioCertificateResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(CERTIFICATE_SERVICE, {CREATE_CERTIFICATE_METHOD: method})

    async def _create_certificate(self, request: IstioCertificateRequest, context: Context) -> IstioCertificateResponse:
        try:
            return await self._answer(request, context)
        except _Refusal as refusal:
            log.warning("certificate refused to %s: %s", context.peer(), refusal)
            await context.abort(refusal.code, str(refusal))
            raise  # never reached: abort() raises

    async def _answer(self, request: IstioCertificateRequest, context: Context) -> IstioCertificateResponse:
        caller = await self._caller(context)
        identity = self._granted(caller, request)
        try:
            chain = self._authority.issue(request.csr, identity, _lifetime(request), datetime.now(UTC))
        except RequestRefused as error:
            raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except AuthorityError as error:
            log.error("no certificate for %s: %s", identity, error)
            raise _Refusal(grpc.StatusCode.UNAVAILABLE, "the authority cannot sign now") from error
        log.info("certificate for %s to %s", identity, caller)
        return IstioCertificateResponse(cert_chain=chain)

    def _granted(self, caller: Caller, request: IstioCertificateRequest) -> SpiffeId:
        """The identity that the caller may have. Raises _Refusal."""
        if isinstance(caller, PodIdentity):
            return self._of_waypoint(caller, request)
        identity = _impersonated(request)
        if not self._runs_on_node(caller.node, identity.namespace, identity.service_account):
            log.warning("%s asked for %s, which no pod on it has", caller, identity)
            raise _Refusal(grpc.StatusCode.PERMISSION_DENIED, "no pod of that service account runs on the node")
        return identity

    def _of_waypoint(self, caller: PodIdentity, request: IstioCertificateRequest) -> SpiffeId:
        """Its own: it need not say which, as Istio's proxies do not, and may not name another."""
        if self._waypoint_of(caller) is None:
            raise _Refusal(grpc.StatusCode.PERMISSION_DENIED, f"{caller} is not known as a waypoint's")
        own = SpiffeId(self._authority.trust_domain, caller.namespace, caller.service_account)
        if IMPERSONATED_IDENTITY in request.metadata.fields and _impersonated(request) != own:
            raise _Refusal(grpc.StatusCode.PERMISSION_DENIED, f"a waypoint gets a certificate for {own} only")
        return own

    async def _caller(self, context: Context) -> Caller:
        try:
            token = bearer_token(context.invocation_metadata() or ())
            return await self._authenticator.authenticate(token)
        except Undecided as error:
            log.error("%s", error)
            raise _Refusal(grpc.StatusCode.UNAVAILABLE, "the token cannot be checked now") from error
        except Unauthenticated as error:
            raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error


def _impersonated(request: IstioCertificateRequest) -> SpiffeId:
    value = request.metadata.fields[IMPERSONATED_IDENTITY].string_value
    if not value:
        raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"metadata {IMPERSONATED_IDENTITY} is missing")
    try:
        return SpiffeId.parse(value)
    except ValueError as error:
        raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"metadata {IMPERSONATED_IDENTITY}: {error}") from error


def _lifetime(request: IstioCertificateRequest) -> timedelta | None:
    seconds = min(request.validity_duration, _MAX_SECONDS)
    return timedelta(seconds=seconds) if seconds > 0 else None
