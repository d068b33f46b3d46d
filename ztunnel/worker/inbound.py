"""Inbound HBONE: TLS with the pod's own certificate, then a decision for every CONNECT.

The pod is the one whose namespace the listener is in. The app is dialled at the connection's own destination address,
from inside the pod, and sees the real client; 200 is said only once the app has accepted.
"""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import replace

from mesh.hbone import SERVER_LIMITS, ErrorCode, Limits
from mesh.hbone.connect_headers import refusal_headers, response_headers
from mesh.identity.peers import check_client
from mesh.identity.tls import TlsSession
from mesh.model.address import SocketAddress
from mesh.model.identity import SpiffeId
from mesh.policy.match import ConnectionFacts
from ztunnel.plan.inbound import Connect, denial, plan_inbound
from ztunnel.plan.plan import Answer, Deliver, Flag
from ztunnel.worker.connections import HBONE, INBOUND, Record
from ztunnel.worker.context import Context
from ztunnel.worker.pods import Pod
from ztunnel.worker.sockets import Dial, reset
from ztunnel.worker.stream import Stream
from ztunnel.worker.tunnel import Tunnel


class ServerTunnel(Tunnel):
    """A tunnel that a peer opened to one of our pods."""

    is_client = False

    def __init__(
        self,
        gate: Gate,
        pod: Pod,
        identity: SpiffeId,
        sock: socket.socket,
        local: SocketAddress,
        remote: SocketAddress,
    ) -> None:
        context = gate.context
        session = context.certificates.session(identity, server=True)
        super().__init__(context, sock, session)
        self.pod = pod
        self.local = local
        self.remote = remote
        self.identity = identity
        self._gate = gate

    def request_received(self, stream: int, headers: dict[str, str], ended: bool) -> None:
        request = Request(self._gate.context, self, stream)
        self.streams[stream] = request
        request.begin(headers, ended)

    def respond(self, stream: int, status: int, headers: tuple[tuple[str, str], ...] = (), end: bool = False) -> None:
        if self._connection is not None and not self.closed:
            self._connection.respond(stream, status, headers, end)
            self._mark()

    def _limits(self) -> Limits:
        return replace(SERVER_LIMITS, max_concurrent_streams=self.settings.tunnel_streams)

    def _check_peer(self, session: TlsSession) -> SpiffeId:
        return check_client(session.peer_identities(), self.identity.trust_domain)

    def _established(self) -> None:
        self._gate.established(self)

    def _gone(self, flag: Flag, reason: str, established: bool) -> None:
        self._gate.gone(self, flag, reason, established)

    def _stream_released(self) -> None:
        """Room on it is the client's business."""


class Gate:
    """All inbound tunnels of the worker, from accept on.

    Tunnels are bounded, also for each peer's address; handshakes under way are bounded for each pod.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self._handshakes: dict[Pod, dict[ServerTunnel, None]] = {}
        self._tunnels: dict[ServerTunnel, None] = {}
        self._peers: Counter[str] = Counter()  # tunnels by the peer's address, handshakes included
        self._refused = 0
        self._broken = 0  # tunnels of peers that were who they should be, and then broke a rule or fell silent

    def accept(self, pod: Pod, sock: socket.socket, local: SocketAddress, remote: SocketAddress) -> None:
        """A connection to the pod's port 15008; it waits a little for a new pod's workload and certificate."""
        self.context.loop.watch(sock.fileno(), _ignore)
        Arrival(self, pod, sock, local, remote).find_workload()

    def full(self, remote: SocketAddress) -> str:
        """Why there is no room for another tunnel, or ""."""
        settings = self.context.settings
        if self._peers[remote.ip] >= settings.peer_tunnels:
            return f"{remote.ip} has {settings.peer_tunnels} tunnels already"
        if self._peers.total() >= settings.inbound_tunnels:
            return f"{settings.inbound_tunnels} inbound tunnels are open already"
        return ""

    def enter(self, tunnel: ServerTunnel) -> None:
        self._peers[tunnel.remote.ip] += 1
        handshakes = self._handshakes.setdefault(tunnel.pod, {})
        handshakes[tunnel] = None
        if len(handshakes) > self.context.settings.handshakes:
            next(iter(handshakes)).break_off("too many TLS handshakes are under way")
        tunnel.begin()

    def established(self, tunnel: ServerTunnel) -> None:
        self._leave_handshakes(tunnel)
        self._tunnels[tunnel] = None

    def gone(self, tunnel: ServerTunnel, flag: Flag, reason: str, established: bool) -> None:
        self._leave_handshakes(tunnel)
        self._tunnels.pop(tunnel, None)
        self._peers[tunnel.remote.ip] -= 1
        if not self._peers[tunnel.remote.ip]:
            del self._peers[tunnel.remote.ip]
        if established:
            self._broken += bool(reason)
        else:
            self.refused(tunnel.pod, tunnel.local, tunnel.remote, Flag.TLS_FAILURE, reason)

    def count_refusal(self) -> None:
        self._refused += 1

    def refused(self, pod: Pod, local: SocketAddress, remote: SocketAddress, flag: Flag, reason: str) -> None:
        self.context.book.close(Record(INBOUND, HBONE, pod.uid, remote, local), flag, reason)

    def pod_left(self, pod: Pod) -> None:
        """Peers must not open new streams to it; those that stand go on."""
        for tunnel in [each for each in self._tunnels if each.pod is pod]:
            tunnel.retire()
        for tunnel in list(self._handshakes.pop(pod, {})):
            tunnel.break_off("the pod has left the mesh")

    def break_all(self, reason: str) -> None:
        for tunnel in list(self._tunnels):
            tunnel.break_off(reason)

    def counters(self) -> dict[str, int]:
        return {
            "inbound_tunnels": len(self._tunnels),
            "inbound_streams": sum(len(tunnel.streams) for tunnel in self._tunnels),
            "inbound_held_bytes": sum(tunnel.held() for tunnel in self._tunnels),
            "inbound_tunnels_refused": self._refused,
            "inbound_tunnels_broken": self._broken,
            "inbound_peers": len(self._peers),
            "inbound_handshakes": sum(len(tunnels) for tunnels in self._handshakes.values()),
        }

    def _leave_handshakes(self, tunnel: ServerTunnel) -> None:
        handshakes = self._handshakes.get(tunnel.pod)
        if handshakes is not None:
            handshakes.pop(tunnel, None)
            if not handshakes:
                del self._handshakes[tunnel.pod]


class Arrival:
    """An accepted connection until TLS can begin."""

    def __init__(self, gate: Gate, pod: Pod, sock: socket.socket, local: SocketAddress, remote: SocketAddress) -> None:
        self._gate = gate
        self._pod = pod
        self._sock = sock
        self._local = local
        self._remote = remote

    def find_workload(self) -> None:
        context = self._gate.context
        if context.mesh.workload(self._pod.uid) is None:
            context.arrivals.wait(self._pod.uid, self._workload_came)
        else:
            self._workload_came(True)

    def _workload_came(self, came: bool) -> None:
        context = self._gate.context
        identity = self._pod.identity(context.mesh)
        if identity is None:
            self._refuse(Flag.NONE, f"the mesh does not know workload {self._pod.uid}")
        elif context.certificates.known(identity):
            self._secure(identity)
        else:
            context.arrivals.wait(identity, lambda came: self._secure(identity))

    def _secure(self, identity: SpiffeId) -> None:
        certificates = self._gate.context.certificates
        if reason := self._gate.full(self._remote):
            self._gate.count_refusal()
            self._refuse(Flag.CONNECT, reason)
        elif not certificates.held(identity):
            self._refuse(Flag.IDENTITY_ERROR, certificates.why_missing(identity))
        else:
            self._gate.enter(ServerTunnel(self._gate, self._pod, identity, self._sock, self._local, self._remote))

    def _refuse(self, flag: Flag, reason: str) -> None:
        self._gate.refused(self._pod, self._local, self._remote, flag, reason)
        reset(self._gate.context.loop, self._sock)


class Request:
    """One CONNECT until its bytes flow (occupants.Occupant)."""

    __slots__ = ("_context", "_decided", "_dial", "_early", "_ended", "_plan", "_record", "_stream", "_tunnel")

    def __init__(self, context: Context, tunnel: ServerTunnel, stream: int) -> None:
        self._context = context
        self._tunnel = tunnel
        self._stream = stream
        self._early = bytearray()  # bounded by the stream's window: no credit goes back before the app is there
        self._ended = False
        self._dial: Dial | None = None
        self._plan: Deliver | None = None
        self._decided = 0  # the mesh's generation then
        self._record = Record(INBOUND, HBONE, tunnel.pod.uid, tunnel.remote, tunnel.local)
        self._record.source_identity = tunnel.peer
        self._record.destination_identity = tunnel.identity

    def begin(self, headers: dict[str, str], ended: bool) -> None:
        tunnel = self._tunnel
        assert tunnel.peer is not None
        self._ended = ended
        request = Connect(
            headers.get(":method", ""),
            headers.get(":authority", ""),
            headers,
            tunnel.local,
            tunnel.remote,
            tunnel.peer,
        )
        plan = plan_inbound(self._context.mesh, tunnel.pod.uid, request)
        if isinstance(plan, Answer):
            if plan.facts is not None:
                self._found_out(plan.facts)
            self._record.peer_workload = plan.source_workload
            self._answer(plan.status, plan.flag, plan.reason)
        else:
            self._deliver(plan)

    def _deliver(self, plan: Deliver) -> None:
        self._plan = plan
        self._decided = self._context.mesh.generation
        client = plan.client if plan.client.port else SocketAddress(plan.client.ip, self._tunnel.remote.port)
        record = self._record
        self._found_out(plan.permit.facts)
        record.source = client
        record.actual = plan.address
        record.destination_service = plan.service
        record.peer_workload = plan.source_workload
        self._context.book.open(record)
        self._dial = Dial(self._context.loop, plan.address, self._connected, self._not_connected)
        # Still in this turn, but after all that was received with it: who resets at once is answered nothing, costs no
        # dial, and is counted as one who resets before the response.
        self._context.loop.soon(self._dial_app)

    def _found_out(self, facts: ConnectionFacts) -> None:
        """Who connects to what: a waypoint speaks for its client."""
        record = self._record
        if facts.source != record.source.ip:
            record.source = SocketAddress(facts.source, 0)
        record.source_identity = facts.peer
        record.destination = facts.destination

    def _dial_app(self) -> None:
        if self._dial is None:  # reset meanwhile
            return
        client = self._record.source
        self._dial.start_inside(
            self._tunnel.pod.network_namespace,
            self._context.settings.connect_timeout,
            lambda sock: self._context.capture.present_client(sock.fileno(), client),
        )

    def _connected(self, sock: socket.socket) -> None:
        plan, tunnel, record = self._plan, self._tunnel, self._record
        assert plan is not None
        told, self._dial = self._dial.told if self._dial else 0, None
        mesh = self._context.mesh
        if mesh.generation != self._decided and (reason := denial(mesh, tunnel.pod.uid, plan.permit)):
            reset(self._context.loop, sock)
            self._answer(401, Flag.DENY, reason)
            return
        if plan.preamble and sock.send(plan.preamble) < len(plan.preamble):
            reset(self._context.loop, sock)
            self._answer(503, Flag.CONNECT, "the app does not take the PROXY header")
            return
        own = self._context.mesh.workload(tunnel.pod.uid)
        with_baggage = own is not None and self._context.settings.response_baggage
        tunnel.respond(self._stream, 200, response_headers(own) if with_baggage and own else ())
        stream = Stream(tunnel, self._stream, sock, record.finished)
        tunnel.streams[self._stream] = stream
        record.carrier = stream
        record.permit = plan.permit
        stream.start(told, self._early, self._ended)

    def _not_connected(self, code: int, reason: str) -> None:
        self._dial = None
        self._answer(503, Flag.CONNECT, reason)

    def _answer(self, status: int, flag: Flag, reason: str) -> None:
        self._tunnel.respond(self._stream, status, refusal_headers(reason), end=True)
        self._leave(flag, reason)

    def _leave(self, flag: Flag, reason: str) -> None:
        self._tunnel.release(self._stream)
        self._context.book.close(self._record, flag, reason)

    def _cancel(self, reason: str) -> None:
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        self._leave(Flag.NONE, reason)

    def crash(self, reason: str) -> None:
        self._tunnel.reset(self._stream, ErrorCode.INTERNAL_ERROR)
        self._cancel(reason)

    # --- the stream (occupants.Occupant)

    def answered(self, status: int, headers: dict[str, str]) -> None:
        """Only clients are answered."""

    def push(self, pieces: list[memoryview]) -> None:
        for piece in pieces:
            self._early += piece

    def ended(self) -> None:
        self._ended = True

    def writable(self) -> None:
        """Nothing waits yet."""

    def held(self) -> int:
        return len(self._early)

    def peer_reset(self, code: int) -> None:
        self._cancel(f"the peer reset the stream (code {code}) before the app had accepted")

    def lost(self, reason: str) -> None:
        self._cancel(reason)


def _ignore(event: int) -> None:
    """Whatever happens is found when TLS begins."""
