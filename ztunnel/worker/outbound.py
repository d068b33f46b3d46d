"""Captured outbound connections: what the app dialled, what shall become of it, and doing it.

A connection that cannot have what the mesh demands is reset, with the reason in its record, and never sent in plain
text. It is reset at once, unless all that is missing is a waypoint that may be back in a moment.
"""

from __future__ import annotations

import random
import socket

from mesh.hbone import ErrorCode, GoingAway, TooManyStreams
from mesh.hbone.connect_headers import refusal, request_headers
from mesh.model.address import SocketAddress
from mesh.model.workload import Workload, WorkloadUid
from ztunnel.plan.outbound import plan_outbound
from ztunnel.plan.plan import Flag, PassThrough, Refuse, Tunnel
from ztunnel.plan.unanswered import Unanswered
from ztunnel.worker.connections import HBONE, OUTBOUND, TCP, Record
from ztunnel.worker.context import Context
from ztunnel.worker.loop import BROKEN, HANGUP, IN, Timer
from ztunnel.worker.pods import Pod
from ztunnel.worker.pool import ClientTunnel, Key, Pool
from ztunnel.worker.relay import Relay
from ztunnel.worker.sockets import Dial, reset
from ztunnel.worker.stream import MOST_EARLY, Stream
from ztunnel.worker.unavailable import answer, answer_now

ATTEMPTS = 3  # tunnels tried for one connection; the app at the other end gets what was said at most once
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between looks for a waypoint that is away


class Outbound:
    """One captured connection until its bytes flow."""

    __slots__ = (
        "_asked",
        "_attempts",
        "_avoid",
        "_context",
        "_dial",
        "_early",
        "_pause",
        "_plan",
        "_pod",
        "_pool",
        "_record",
        "_sock",
        "_source",
        "_stream",
        "_timer",
        "_told",
        "_tunnel",
        "_until",
        "_why",
    )

    def __init__(self, context: Context, pool: Pool, pod: Pod, sock: socket.socket, source: SocketAddress) -> None:
        self._context = context
        self._pool = pool
        self._pod = pod
        self._sock: socket.socket | None = sock  # None once it is handed over or gone
        self._source = source
        self._record = Record(OUTBOUND, TCP, pod.uid, source, SocketAddress(source.ip, 0))
        self._dial: Dial | None = None
        self._tunnel: ClientTunnel | None = None
        self._plan: Tunnel | None = None
        self._stream = 0
        self._attempts = 0
        self._early = 0  # bytes of the app's that went with CONNECT
        self._avoid: frozenset[WorkloadUid] = frozenset()
        self._timer: Timer | None = None
        self._asked = b""  # of a waypoint that has gone, and not answered
        self._pause = FIRST_PAUSE
        self._until: float | None = None  # when it has waited long enough for a waypoint
        self._why = ""  # it waits
        self._told = 0  # events of the app's socket: their edges are not repeated to the pump

    def begin(self) -> None:
        assert self._sock is not None
        self._context.loop.watch(self._sock.fileno(), self.event)
        destination = self._context.capture.original_destination(self._sock.fileno())
        if destination is None:
            self._refuse(Flag.NONE, f"{self._source} was not captured: nobody knows what it dialled")
            return
        self._record.destination = destination
        self._come_from(destination)
        if self._context.mesh.workload(self._pod.uid) is None:
            self._context.arrivals.wait(self._pod.uid, self._decide_when)
        else:
            self._decide()

    def go_on(self, destination: SocketAddress, asked: bytes) -> None:
        """In the place of a connection whose waypoint has gone."""
        assert self._sock is not None
        self._context.loop.hand_over(self._sock.fileno(), self.event)
        self._record.destination, self._asked = destination, asked
        self._told = IN | HANGUP  # there may be more to read
        self._wait("the waypoint has gone")  # a moment: one that ends each connection must not keep us busy

    def _come_from(self, destination: SocketAddress) -> None:
        """Capture led the app's socket over loopback; without it, it would come from the pod's address."""
        ip = self._pod.address_towards(destination.ip)
        if ip is not None:
            self._source = self._record.source = SocketAddress(ip, self._source.port)

    # --- the decision

    def _decide_when(self, known: bool) -> None:
        if self._sock is None:
            return
        if known:
            self._decide()
        else:
            self._refuse(Flag.NONE, f"the mesh does not know workload {self._pod.uid}")

    def _decide(self) -> None:
        plan = plan_outbound(
            self._context.mesh, self._pod.uid, self._record.destination, self._context.chance, self._avoid
        )
        if isinstance(plan, Refuse):
            if not plan.passing or not self._wait(plan.reason):
                self._refuse(plan.flag, plan.reason, told=plan.passing)
        elif isinstance(plan, PassThrough):
            self._pass_through(plan)
        else:
            self._through_tunnel(plan)

    def _wait(self, reason: str) -> bool:
        """For a waypoint that is away; whether it is worth it."""
        loop = self._context.loop
        if self._until is None:
            self._until = loop.now + self._context.settings.waypoint_timeout
        if self._sock is None or loop.now + self._pause > self._until:
            return False
        self._why, self._avoid, self._attempts = reason, frozenset(), 0
        self._timer = loop.later(self._pause, self._look_again)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True

    def _look_again(self) -> None:
        self._timer = None
        if self._sock is not None:
            self._decide()

    def _refuse(self, flag: Flag, reason: str, *, told: bool = False) -> None:
        """`told`: an app that has asked something over HTTP hears why."""
        if self._sock is None:
            return
        sock, context = self._leave(), self._context
        context.book.close(self._record, flag, reason)
        if not (told or self._asked) or not answer(context.lingering, sock, self._asked, reason):
            reset(context.loop, sock)

    def _leave(self) -> socket.socket:
        sock, self._sock = self._sock, None
        assert sock is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return sock

    # --- past the mesh

    def _pass_through(self, plan: PassThrough) -> None:
        record = self._record
        record.actual = plan.destination
        record.destination_service = plan.service
        record.peer_workload = plan.workload
        self._open_record()
        self._dial = Dial(self._context.loop, plan.destination, self._passed, self._not_passed)
        self._dial.start(self._pod.network_namespace, self._context.settings.connect_timeout)

    def _passed(self, server: socket.socket) -> None:
        self._dial = None
        client, record = self._leave(), self._record
        relay = Relay(self._context.loop, client, server, record.finished)
        record.carrier = relay
        relay.start()

    def _not_passed(self, code: int, reason: str) -> None:
        self._dial = None
        self._refuse(Flag.CONNECT, reason)

    def _open_record(self) -> None:
        if not self._record.opened:
            self._context.book.open(self._record)

    # --- through a tunnel

    def _through_tunnel(self, plan: Tunnel) -> None:
        self._plan = plan
        identity = self._pod.identity(self._context.mesh)
        assert identity is not None  # the plan has found the workload
        record = self._record
        record.protocol = HBONE
        record.actual = plan.dial
        record.source_identity = identity
        record.destination_identity = next(iter(plan.identities)) if len(plan.identities) == 1 else None
        record.destination_service = plan.service
        record.peer_workload = plan.workload
        if self._context.certificates.known(identity):
            self._request(True)
        else:
            self._context.arrivals.wait(identity, self._request)

    def _request(self, certificate_came: bool) -> None:
        if self._sock is None:
            return
        identity, plan = self._record.source_identity, self._plan
        assert identity is not None
        assert plan is not None
        if not self._context.certificates.held(identity):
            self._refuse(Flag.IDENTITY_ERROR, self._context.certificates.why_missing(identity))
            return
        self._open_record()
        self._attempts += 1
        key = Key(identity, plan.identities, plan.dial, self._pod.cookie)
        self._pool.request(key, self._pod.network_namespace, self)

    @property
    def _by_waypoint(self) -> bool:
        return self._plan is not None and self._plan.via_waypoint

    @property
    def gave_up(self) -> bool:
        return self._sock is None

    def tunnel_failed(self, flag: Flag, reason: str) -> None:
        """Another endpoint may do, if a service was dialled, or another pod of the waypoint."""
        plan = self._plan
        assert plan is not None
        several = bool(plan.service) or plan.via_waypoint
        if several and self._attempts < ATTEMPTS and flag in (Flag.CONNECT, Flag.NETWORK_POLICY):
            self._avoid |= {plan.workload}
            other = plan_outbound(
                self._context.mesh, self._pod.uid, self._record.destination, self._context.chance, self._avoid
            )
            if isinstance(other, Tunnel):
                self._through_tunnel(other)
                return
        # One that ends breaks handshakes as well.
        if not (plan.via_waypoint and flag is not Flag.IDENTITY_ERROR and self._wait(reason)):
            self._refuse(flag, reason, told=plan.via_waypoint)

    def tunnel_ready(self, tunnel: ClientTunnel) -> None:
        plan, own = self._plan, self._context.mesh.workload(self._pod.uid)
        assert plan is not None
        if own is None:
            self._refuse(Flag.NONE, f"workload {self._pod.uid} has left the mesh")
            return
        try:
            self._stream = tunnel.connect(plan.authority, self._headers(plan, own), self)
        except (TooManyStreams, GoingAway) as error:
            self._refuse(Flag.CONNECT, str(error))
            return
        self._tunnel = tunnel
        self._say_early(tunnel)
        self._record.destination_identity = tunnel.peer
        self._timer = self._context.loop.later(self._context.settings.response_timeout, self._timed_out)

    def _say_early(self, tunnel: ClientTunnel) -> None:
        """What the app has said already goes with CONNECT, which spares both sides a turn (13 % of connections per
        second). It stays in the app's socket until the answer: a stream that the peer refuses is opened again with it.
        Not to a waypoint: what is said to one is followed from the first byte on (Stream.follow).
        """
        room = tunnel.reserve(self._stream) if tunnel.takes_early and not self._by_waypoint else None
        if room is None or self._sock is None:
            return
        try:
            size = self._sock.recv_into(room, min(len(room), MOST_EARLY), socket.MSG_PEEK)
        except OSError:  # nothing yet, or it has broken, of which an event tells
            return
        if size:
            tunnel.commit(self._stream, size)
            self._early = size

    def _headers(self, plan: Tunnel, own: Workload) -> tuple[tuple[str, str], ...]:
        return request_headers(own, self._source, plan.service, random.getrandbits(128), random.getrandbits(64))

    def _timed_out(self) -> None:
        self._cancel()
        self._refuse(Flag.CONNECT, f"no response to CONNECT within {self._context.settings.response_timeout:g} s")

    def _cancel(self) -> None:
        """Gives the stream up, if there is one."""
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.reset(self._stream, ErrorCode.CANCEL)
            tunnel.release(self._stream)

    def _again(self, reason: str) -> None:
        """The peer has not processed the stream, so another tunnel may be asked."""
        tunnel, self._tunnel = self._tunnel, None
        self._early = 0
        if tunnel is not None:
            tunnel.release(self._stream)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attempts < ATTEMPTS:
            self._request(True)
        elif not self._by_waypoint or not self._wait(reason):
            self._refuse(Flag.CONNECT, reason, told=self._by_waypoint)

    # --- the app's socket, before bytes flow

    def event(self, event: int) -> None:
        self._told |= event
        if event & BROKEN and self._sock is not None:
            if self._dial is not None:
                self._dial.cancel()
                self._dial = None
            self._cancel()
            waited = f", while {self._why}" if self._why and self._timer is not None else ""
            self._refuse(Flag.NONE, f"the app reset the connection before it was established{waited}")

    def crash(self, reason: str) -> None:
        self._cancel()
        self._refuse(Flag.NONE, reason)

    # --- the stream (occupants.Occupant), before bytes flow

    def answered(self, status: int, headers: dict[str, str]) -> None:
        tunnel = self._tunnel
        assert tunnel is not None
        if status != 200:
            self._cancel()
            why = refusal(headers)
            said = f"{self._record.actual} answered CONNECT with status {status}{why and ': '}{why}"
            self._refuse(Flag.CONNECT, said, told=self._by_waypoint)
            return
        tunnel.accepted()
        sock, record = self._leave(), self._record
        stream = Stream(tunnel, self._stream, sock, record.finished)
        tunnel.streams[self._stream] = stream
        record.carrier = stream
        if self._by_waypoint:
            stream.follow(Unanswered(to_repeat=not self._asked), self._rescue, self._asked)
        stream.start(self._told, said=self._early)

    def _rescue(self, sock: socket.socket, asked: bytes | None, reason: str) -> None:
        """The waypoint has gone; another one, or the same that is back, may go on. See Stream.follow."""
        context = self._context
        if asked is not None:
            successor = Outbound(context, self._pool, self._pod, sock, self._source)
            successor.go_on(self._record.destination, asked)
        elif not answer_now(context.lingering, sock, f"the waypoint has gone in the middle of the request: {reason}"):
            reset(context.loop, sock)

    def push(self, pieces: list[memoryview]) -> None:
        """HTTP/2 does not hand on DATA before a response."""

    def ended(self) -> None:
        """Neither END_STREAM."""

    def writable(self) -> None:
        """Nothing waits yet."""

    def held(self) -> int:
        return 0

    def peer_reset(self, code: int) -> None:
        if code == ErrorCode.REFUSED_STREAM:
            self._again("the peer refuses streams")
            return
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.release(self._stream)
        self._refuse(Flag.CONNECT, f"{self._record.actual} reset the stream (code {code}) before it answered")

    def lost(self, reason: str) -> None:
        """A pooled tunnel may have died long ago: if nothing of the app's was sent, another one is tried."""
        why = f"the tunnel to {self._record.actual} broke: {reason}"
        if self._early:  # the app at the other end may have had it
            self._tunnel = None
            self._refuse(Flag.CONNECT, why)
        else:
            self._again(why)
