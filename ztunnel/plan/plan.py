"""What is decided about a connection, as printable values: the worker carries a plan out, and logs show it."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from mesh.model.address import SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.workload import WorkloadUid
from mesh.policy.evaluate import Permit
from mesh.policy.match import ConnectionFacts


class Flag(StrEnum):
    """Istio's response flags of a TCP connection (access log, metrics)."""

    NONE = "-"
    DENY = "DENY"
    CONNECT = "CONNECT"
    TLS_FAILURE = "TLS_FAILURE"
    H2_HANDSHAKE_FAILURE = "H2_HANDSHAKE_FAILURE"
    NETWORK_POLICY = "NETWORK_POLICY"
    IDENTITY_ERROR = "IDENTITY_ERROR"
    CERT_REVOKED = "CERT_REVOKED"


# --- outbound


class PassThrough(Struct, frozen=True):
    """Plain TCP to `destination`: it is not in the mesh, or has no tunnel."""

    destination: SocketAddress
    reason: str
    service: str = ""  # hostname, when a service was addressed
    workload: WorkloadUid | None = None


class Tunnel(Struct, frozen=True):
    """An HBONE tunnel to `dial`, in it CONNECT `authority`; the peer must prove one of `identities`."""

    authority: str
    dial: SocketAddress
    identities: frozenset[SpiffeId]
    workload: WorkloadUid  # whose tunnel end it is: the destination, or the waypoint's pod
    service: str = ""  # hostname of the service that the app addressed
    via_waypoint: bool = False


class Refuse(Struct, frozen=True):
    """Nothing is dialled."""

    reason: str
    flag: Flag = Flag.CONNECT
    passing: bool = False  # it may be otherwise in a moment: a waypoint has no pod that is ready


OutboundPlan = PassThrough | Tunnel | Refuse

# --- inbound


class Deliver(Struct, frozen=True):
    """Dial the app at `address`, showing it `client`. There is no Deliver without a Permit."""

    address: SocketAddress
    permit: Permit
    client: SocketAddress
    service: str = ""  # hostname, when the client said by which of the pod's own services it came
    source_workload: WorkloadUid | None = None
    preamble: bytes = b""  # to be written to the app before any payload (PROXY protocol)


class Answer(Struct, frozen=True):
    """Nothing is dialled. For a CONNECT the response is `status`; a plain connection is closed."""

    status: int
    reason: str
    flag: Flag = Flag.NONE
    facts: ConnectionFacts | None = None  # who it was, as far as that was found out
    source_workload: WorkloadUid | None = None


InboundPlan = Deliver | Answer
