"""Captured inbound connections that came in plain text: policy without an identity, then straight to the app."""

from __future__ import annotations

import socket

from mesh.model.address import SocketAddress
from mesh.policy.evaluate import Permit
from ztunnel.plan.inbound import denial, plan_plaintext
from ztunnel.plan.plan import Answer, Deliver, Flag
from ztunnel.worker.connections import INBOUND, TCP, Record
from ztunnel.worker.context import Context
from ztunnel.worker.loop import BROKEN
from ztunnel.worker.pods import Pod
from ztunnel.worker.relay import Relay
from ztunnel.worker.sockets import Dial, reset


class Plaintext:
    """One connection until its bytes flow."""

    def __init__(
        self, context: Context, pod: Pod, sock: socket.socket, local: SocketAddress, remote: SocketAddress
    ) -> None:
        self._context = context
        self._pod = pod
        self._sock: socket.socket | None = sock  # None once it is handed over or gone
        self._local = local
        self._remote = remote
        self._record = Record(INBOUND, TCP, pod.uid, remote, local)
        self._dial: Dial | None = None
        self._decided = 0  # the mesh's generation then

    def begin(self) -> None:
        assert self._sock is not None
        self._context.loop.watch(self._sock.fileno(), self.event)
        if self._context.mesh.workload(self._pod.uid) is None:
            self._context.arrivals.wait(self._pod.uid, lambda came: self._decide())
        else:
            self._decide()

    def _decide(self) -> None:
        if self._sock is None:
            return
        plan = plan_plaintext(self._context.mesh, self._pod.uid, self._local, self._remote)
        if isinstance(plan, Answer):
            self._record.peer_workload = plan.source_workload
            self._refuse(plan.flag, plan.reason)
        else:
            self._deliver(plan)

    def _deliver(self, plan: Deliver) -> None:
        self._decided = self._context.mesh.generation
        self._record.actual = plan.address
        self._record.peer_workload = plan.source_workload
        self._context.book.open(self._record)
        capture = self._context.capture
        self._dial = Dial(
            self._context.loop, plan.address, lambda sock: self._connected(sock, plan.permit), self._not_connected
        )
        self._dial.start_inside(
            self._pod.network_namespace,
            self._context.settings.connect_timeout,
            lambda sock: capture.present_client(sock.fileno(), plan.client),
        )

    def _connected(self, server: socket.socket, permit: Permit) -> None:
        client, record = self._sock, self._record
        assert client is not None
        mesh = self._context.mesh
        if mesh.generation != self._decided and (reason := denial(mesh, self._pod.uid, permit)):
            self._dial = None
            reset(self._context.loop, server)
            self._refuse(Flag.DENY, reason)
            return
        self._sock = self._dial = None
        relay = Relay(self._context.loop, client, server, record.finished)
        record.carrier = relay
        record.permit = permit
        relay.start()

    def _not_connected(self, code: int, reason: str) -> None:
        self._dial = None
        self._refuse(Flag.CONNECT, reason)

    def _refuse(self, flag: Flag, reason: str) -> None:
        if self._sock is not None:
            sock, self._sock = self._sock, None
            self._context.book.close(self._record, flag, reason)
            reset(self._context.loop, sock)

    def event(self, event: int) -> None:
        """The client's socket, before bytes flow."""
        if event & BROKEN and self._sock is not None:
            if self._dial is not None:
                self._dial.cancel()
                self._dial = None
            self._refuse(Flag.NONE, "the client reset the connection before the app had accepted")

    def crash(self, reason: str) -> None:
        self._refuse(Flag.NONE, reason)
