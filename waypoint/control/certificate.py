"""The waypoint's own certificate: asked of the CA before anything is served, renewed at half life."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from mesh.identity.credential import Credential, issued_credential
from mesh.identity.csr import request_certificate
from mesh.identity.tls import TlsIdentity
from mesh.model.identity import SpiffeId
from mesh.runtime.backoff import Backoff
from mesh.runtime.control_plane import Control, ControlError
from mesh.wire.generated.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from mesh.wire.services import CREATE_CERTIFICATE_PATH
from waypoint.control.grpc import call

DEADLINE = 10.0  # seconds for one request
BACKOFF_START, BACKOFF_CAP = 1.0, 60.0  # seconds
MISSING_CAP = 5.0  # seconds: while there is no certificate at all, nobody is served
LONGEST_SLEEP = 60.0  # seconds: the clock may be set, and certificates live by it

log = logging.getLogger("certificate")


class CertificateKeeper:
    """`changed` gets each certificate, and None when the last one has expired without another."""

    def __init__(
        self,
        control: Control,
        cluster: str,
        identity: SpiffeId,
        ttl: float,
        changed: Callable[[TlsIdentity | None], None],
    ) -> None:
        self._control = control
        self._cluster = cluster
        self._identity = identity
        self._ttl = ttl
        self._changed = changed
        self._backoff = Backoff(BACKOFF_START, BACKOFF_CAP)
        self._attempt_at = 0.0
        self.credential: Credential | None = None
        self.reason = "none has been issued yet"

    async def run(self) -> None:
        while True:
            self._expire()
            if self._attempt_at <= time.time():
                await self._attempt()
            await asyncio.sleep(min(max(0.0, self._wake_at() - time.time()), LONGEST_SLEEP))

    def _wake_at(self) -> float:
        return min(self._attempt_at, self.credential.not_after) if self.credential else self._attempt_at

    def _expire(self) -> None:
        if self.credential is not None and not self.credential.valid(time.time()):
            self.credential = None
            self.reason = f"the certificate has expired; {self.reason}"
            log.error("%s", self.reason)
            self._changed(None)

    async def _attempt(self) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                credential = await self._issue()
        except TimeoutError:
            self._refused(f"the CA at {self._control.address} does not answer within {DEADLINE:g} s")
        except ControlError as error:
            self._refused(f"the CA at {self._control.address} says {error}")
        except Exception as error:  # a fault of ours must not end the renewal
            log.exception("certificate")
            self._refused(f"internal error {type(error).__name__}")
        else:
            self._backoff.succeeded()
            self.credential, self.reason = credential, ""
            self._attempt_at = credential.renew_at(time.time())
            log.info("certificate of %s: valid for %.0f s", self._identity, credential.not_after - time.time())
            self._changed(TlsIdentity(credential.chain, credential.private_key, credential.roots))

    async def _issue(self) -> Credential:
        request = request_certificate(self._identity)
        answers: list[bytes] = []
        asked = await call(self._control, CREATE_CERTIFICATE_PATH, self._cluster, answers.append)
        try:
            message = IstioCertificateRequest(csr=request.csr.decode(), validity_duration=max(1, int(self._ttl)))
            asked.send(message.SerializeToString())
            asked.finish()
            await asked.done
        finally:
            asked.close()
        if not answers:
            raise ControlError("nothing")
        try:
            chain = IstioCertificateResponse.FromString(answers[0]).cert_chain
            return issued_credential(self._identity, request.private_key, chain)
        except ValueError as error:
            raise ControlError(str(error)) from error

    def _refused(self, reason: str) -> None:
        wait = self._backoff.after_failure(random.random())
        if self.credential is None:
            wait = min(wait, MISSING_CAP)
        self.reason, self._attempt_at = reason, time.time() + wait
        log.warning("certificate of %s: %s; trying again in %.1f s", self._identity, reason, wait)
