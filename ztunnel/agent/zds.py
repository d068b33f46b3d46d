"""The conversation with the node agent, sans-IO: packets in, what to do with pods out (Istio: proto/zds.proto).

The node agent first tells of every pod that is there (the snapshot), then of each that comes and goes. Each of its
packets is answered with exactly one acknowledgement.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from mesh.wire.generated import zds_pb2

MAX_PACKET = 1024  # bytes, as in Istio


class ZdsError(Exception):
    """The node agent broke the protocol; it is told so, and the connection starts anew."""


@dataclass(frozen=True, slots=True)
class Add:
    """A pod joins the mesh; `netns` is the descriptor of its network namespace, now the receiver's."""

    uid: str
    name: str
    namespace: str
    service_account: str
    netns: int


@dataclass(frozen=True, slots=True)
class Remove:
    uid: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Still there; the node agent has lost its namespace, so what is known of it goes on."""

    uid: str


@dataclass(frozen=True, slots=True)
class Synced:
    """The snapshot is complete: pods other than these have gone."""

    uids: frozenset[str]


Action = Add | Remove | Keep | Synced


def hello() -> bytes:
    return zds_pb2.ZdsHello(version=zds_pb2.V1).SerializeToString()


def acknowledgement(error: str = "") -> bytes:
    """Empty `error`: done. Cut so that the packet stays within its bound."""
    short = error.encode()[: MAX_PACKET - 64].decode(errors="ignore")
    return zds_pb2.WorkloadResponse(ack=zds_pb2.Ack(error=short)).SerializeToString()


class Session:
    """One connection's state."""

    def __init__(self) -> None:
        self._mentioned: set[str] = set()
        self.synced = False

    def received(self, packet: bytes, descriptors: list[int]) -> Action:
        """Raises ZdsError; the caller closes the descriptors then."""
        request = _parse(packet)
        kind = request.WhichOneof("payload")
        wanted = 1 if kind == "add" else 0
        if len(descriptors) != wanted:
            raise ZdsError(
                f"a message {kind or 'of an unknown kind'} came with {len(descriptors)} descriptors, not {wanted}"
            )
        match kind:
            case "add":
                return self._add(request.add, descriptors[0])
            case "del":
                uid = _uid(getattr(request, "del").uid)
                self._mentioned.discard(uid)
                return Remove(uid)
            case "keep":
                return self._keep(request.keep)
            case "snapshot_sent":
                return self._snapshot_sent()
        raise ZdsError("a message of an unknown kind came")

    def _add(self, add: zds_pb2.AddWorkload, netns: int) -> Add:
        if not add.HasField("workload_info"):
            raise ZdsError(f"pod {add.uid!r} came without its name, namespace and service account")
        info = add.workload_info
        self._mention(_uid(add.uid))
        return Add(add.uid, info.name, info.namespace, info.service_account, netns)

    def _keep(self, keep: zds_pb2.KeepWorkload) -> Keep:
        if self.synced:
            raise ZdsError("a pod was to be kept after the snapshot")
        self._mention(_uid(keep.uid))
        return Keep(keep.uid)

    def _snapshot_sent(self) -> Synced:
        if self.synced:
            raise ZdsError("the snapshot was sent twice")
        self.synced = True
        uids, self._mentioned = frozenset(self._mentioned), set()
        return Synced(uids)

    def _mention(self, uid: str) -> None:
        if not self.synced:
            self._mentioned.add(uid)


def _parse(packet: bytes) -> zds_pb2.WorkloadRequest:
    if len(packet) > MAX_PACKET:
        raise ZdsError(f"a packet has more than {MAX_PACKET} bytes")
    try:
        return zds_pb2.WorkloadRequest.FromString(packet)
    except DecodeError as error:
        raise ZdsError(f"a packet of {len(packet)} bytes is not a WorkloadRequest") from error


def _uid(uid: str) -> str:
    if not uid:
        raise ZdsError("a pod came without a uid")
    return uid
