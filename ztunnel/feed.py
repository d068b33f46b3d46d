"""What the agent and a worker say to each other over their UNIX socket.

The agent talks to the world (xDS, CA, node agent, people); a worker carries bytes. Messages are values; a message may
carry file descriptors (SCM_RIGHTS), named in its docstring in their order. A worker that loses its agent goes on with
what it has.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.update import MeshUpdate
from mesh.model.workload import WorkloadUid


class Message(Struct, frozen=True, tag=True):
    """Base of all messages: msgpack, tagged by class name."""


# --- agent to worker


class Mesh(Message, frozen=True):
    """The mesh has changed."""

    update: MeshUpdate


class Certificate(Message, frozen=True):
    """A (new) certificate for an identity; established tunnels keep theirs. All PEM; `chain` is leaf first."""

    identity: SpiffeId
    chain: bytes
    private_key: bytes
    roots: bytes

    def __repr__(self) -> str:
        return f"Certificate({self.identity})"  # the key has no business in a log


class CertificateMissing(Message, frozen=True):
    """There is no valid certificate for an identity: connections that need it are refused, for this reason."""

    identity: SpiffeId
    reason: str


class SocketRole(StrEnum):
    """What a socket that the agent opened inside a pod's network namespace is for."""

    OUTBOUND = "outbound"  # TCP listener on loopback, 15001: captured dials
    INBOUND = "inbound"  # TCP listener on the wildcard, 15006: captured plaintext
    HBONE = "hbone"  # TCP listener on the wildcard, 15008
    DNS_TCP = "dns-tcp"  # TCP listener on loopback, 15053
    DNS_UDP = "dns-udp"  # UDP socket on loopback, 15053


class PodAdded(Message, frozen=True):
    """An enrolled pod of this node.

    Descriptors: its network namespace, then one non-blocking socket for each of `sockets`, in that order. A role comes
    twice when it has an IPv4 and an IPv6 socket (those on loopback); the wildcard ones are dual-stack, or IPv4 only
    where the namespace has no IPv6.
    """

    uid: WorkloadUid
    name: str
    namespace: str
    service_account: str
    netns_cookie: int
    addresses: tuple[Ip, ...]
    sockets: tuple[SocketRole, ...]


class PodRemoved(Message, frozen=True):
    """A pod that left the mesh: its outbound and plaintext listeners close now, HBONE after `linger` seconds, so that
    peers that have not heard yet still reach it. Connections that stand go on."""

    uid: WorkloadUid
    linger: float


class Drain(Message, frozen=True):
    """Close the listeners, say GOAWAY, let connections end until `deadline` seconds have passed, then exit."""

    deadline: float


class DescribeConnections(Message, frozen=True):
    """Asks for `Connections` with the same number."""

    number: int


class Ping(Message, frozen=True):
    """Asks for a `Ready`: a worker that hangs gives none."""


# --- worker to agent


class Ready(Message, frozen=True):
    """All that was sent before has been taken in: `pods` are served."""

    pods: tuple[WorkloadUid, ...]


class PodFailed(Message, frozen=True):
    uid: WorkloadUid
    reason: str


class Misunderstood(Message, frozen=True):
    """The worker's last words: what it was told is not of the format, so it cannot be led any more."""

    reason: str


class Connection(Struct, frozen=True, array_like=True):
    """One app connection, while it lives and (with `ended`) as its access log record. Bytes are the app's payload."""

    direction: str  # "outbound" | "inbound"
    protocol: str  # "HBONE" | "TCP"
    workload: WorkloadUid  # the local pod
    source: SocketAddress
    destination: SocketAddress  # as dialled by the app, or as it reached the pod
    actual: SocketAddress | None = None  # the address that was dialled in the end
    source_identity: SpiffeId | None = None
    destination_identity: SpiffeId | None = None
    destination_service: str = ""  # hostname
    peer_workload: WorkloadUid | None = None
    sent: int = 0  # bytes from the client to the server
    received: int = 0
    started: float = 0.0  # seconds since the epoch
    ended: float | None = None
    flags: str = "-"  # Istio's response flags: - DENY CONNECT TLS_FAILURE IDENTITY_ERROR ...
    error: str = ""  # why it was refused or broke
    opened: bool = True  # false: refused before anything was dialled, so it was never in `Opened`
    announced: bool = True  # false in `Closed`: so short that no `Opened` told of it


class Opened(Message, frozen=True):
    """Connections that began since the last such message and still live."""

    connections: tuple[Connection, ...]


class Closed(Message, frozen=True):
    """Connections that ended (or were refused) since the last such message."""

    connections: tuple[Connection, ...]


class Connections(Message, frozen=True):
    number: int
    connections: tuple[Connection, ...]
    counters: dict[str, int]  # pool, queue and limit gauges by name


ToWorker = Mesh | Certificate | CertificateMissing | PodAdded | PodRemoved | Drain | DescribeConnections | Ping
ToAgent = Ready | PodFailed | Misunderstood | Opened | Closed | Connections
