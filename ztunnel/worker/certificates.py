"""The certificates that the agent has given to this worker, and the reasons for those that it has not."""

from __future__ import annotations

from collections.abc import Callable

from mesh.identity.errors import TlsFailed
from mesh.identity.tls import TlsIdentity, TlsSession, client_context, server_context
from mesh.model.identity import SpiffeId

# Reasons that are kept, besides certificates: more service accounts than a node has pods. Accounts come and go for as
# long as the node lives; whose reason is forgotten is refused a little later, without it.
MOST_REASONS = 4096


class Certificates:
    """By identity; `changed` is told of an identity that has a new certificate, or no longer one."""

    def __init__(self, changed: Callable[[SpiffeId], None]) -> None:
        self._changed = changed
        self._held: dict[SpiffeId, TlsIdentity] = {}
        self._missing: dict[SpiffeId, str] = {}

    def put(self, identity: SpiffeId, chain: bytes, private_key: bytes, roots: bytes) -> None:
        """A certificate that cannot be used counts as missing, with that reason."""
        certificate = TlsIdentity(chain, private_key, roots)
        try:
            server_context(certificate)
            client_context(certificate)
        except TlsFailed as error:
            self.miss(identity, str(error))
            return
        self._held[identity] = certificate
        self._missing.pop(identity, None)
        self._changed(identity)

    def miss(self, identity: SpiffeId, reason: str) -> None:
        self._held.pop(identity, None)
        self._missing.pop(identity, None)
        if len(self._missing) >= MOST_REASONS:
            del self._missing[next(iter(self._missing))]  # the oldest
        self._missing[identity] = reason
        self._changed(identity)

    def counters(self) -> dict[str, int]:
        return {"certificates": len(self._held), "certificates_missing": len(self._missing)}

    def known(self, identity: SpiffeId) -> bool:
        """Whether there is an answer, be it that there is no certificate."""
        return identity in self._held or identity in self._missing

    def held(self, identity: SpiffeId) -> bool:
        return identity in self._held

    def why_missing(self, identity: SpiffeId) -> str:
        reason = self._missing.get(identity, "none has come from the agent")
        return f"no certificate for {identity}: {reason}"

    def session(self, identity: SpiffeId, server: bool) -> TlsSession:
        """A new TLS session that proves `identity`, which is held."""
        certificate = self._held[identity]
        return TlsSession(server_context(certificate) if server else client_context(certificate), server)
