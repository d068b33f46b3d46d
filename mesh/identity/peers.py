"""Who may be at the other end of a tunnel (Istio: src/tls/workload.rs). Asked after the handshake, before any payload.

Pure. That the certificates chain to the own roots has been verified by TLS before.
"""

from __future__ import annotations

from collections.abc import Collection

from mesh.identity.errors import PeerRejected
from mesh.model.identity import SpiffeId


def check_client(identities: Collection[SpiffeId], trust_domain: str) -> SpiffeId:
    """Server side: the client's identity, its first one. Raises PeerRejected unless one is of the own trust domain."""
    if not identities:
        raise PeerRejected("the client's certificate has no SPIFFE ID")
    if not any(identity.trust_domain == trust_domain for identity in identities):
        raise PeerRejected(f"the client is {_listed(identities)}, not of trust domain {trust_domain}")
    return next(iter(identities))


def check_server(identities: Collection[SpiffeId], expected: Collection[SpiffeId]) -> SpiffeId:
    """Client side: the server's identity that was expected. Raises PeerRejected; nothing fits an empty `expected`."""
    for identity in identities:
        if identity in expected:
            return identity
    raise PeerRejected(f"the server is {_listed(identities)}, expected {_listed(expected)}")


def _listed(identities: Collection[SpiffeId]) -> str:
    return " or ".join(str(identity) for identity in identities) or "nobody"
