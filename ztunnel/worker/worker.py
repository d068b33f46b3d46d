"""The worker as a whole: takes what the agent tells it, serves its pods, and goes on when the agent is away."""

from __future__ import annotations

import logging
import random
import socket
from collections import Counter
from typing import assert_never

from mesh.model.address import SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.state import MeshState
from mesh.model.update import MeshUpdate
from mesh.model.workload import WorkloadUid
from mesh.runtime.lines import LineWriter
from ztunnel import feed
from ztunnel.channel import ChannelBroken, WorkerChannel
from ztunnel.dns.resolve import Client, Zone
from ztunnel.feed import SocketRole
from ztunnel.worker.arrivals import Arrivals
from ztunnel.worker.certificates import Certificates
from ztunnel.worker.connections import TCP, Book
from ztunnel.worker.context import Capture, Context
from ztunnel.worker.dns import DnsProxy
from ztunnel.worker.dns_context import COUNTED, DnsContext
from ztunnel.worker.inbound import Gate
from ztunnel.worker.judge import Judge
from ztunnel.worker.lingering import Lingering
from ztunnel.worker.listeners import Listeners, local_address
from ztunnel.worker.loop import IN, OUT, Loop
from ztunnel.worker.outbound import Outbound
from ztunnel.worker.plaintext import Plaintext
from ztunnel.worker.pods import Pod, adopt
from ztunnel.worker.pool import Pool
from ztunnel.worker.settings import Settings
from ztunnel.worker.sockets import reset

DRAIN_POLL = 0.05  # seconds between looks at whether the last connection has ended

log = logging.getLogger("worker")


class Worker:
    """`run` returns when it has drained."""

    def __init__(self, channel: WorkerChannel, capture: Capture, settings: Settings) -> None:
        self.loop = Loop()
        self.lines: LineWriter | None = None  # where the log goes, if that is counted
        self._settings = settings
        self._channel: WorkerChannel | None = channel
        self._pods: dict[WorkloadUid, Pod] = {}
        self._lingering: set[Pod] = set()
        self._mesh = MeshState()
        self._arrivals = Arrivals(self.loop, settings.workload_timeout)
        self._book = Book(self.loop)
        self._certificates = Certificates(self._certificate_changed)
        self._lingering_sockets = Lingering(self.loop)
        self._context = Context(
            self.loop,
            settings,
            self._mesh,
            capture,
            self._certificates,
            self._arrivals,
            self._book,
            self._lingering_sockets,
            random.random,
        )
        self._judge = Judge(self.loop, self._mesh, self._book)
        self._pool = Pool(self._context)
        self._gate = Gate(self._context)
        self._listeners = Listeners(self.loop)
        self._dns_counts: Counter[str] = Counter()
        self._draining_until: float | None = None
        self._book.report_to(self._tell)
        self.loop.watch(channel.fileno(), self._fed, IN)

    def run(self) -> None:
        self.loop.run()
        self._book.report()

    # --- the agent

    def _fed(self, event: int) -> None:
        """Level-triggered: a message may come in parts."""
        channel = self._channel
        if channel is None:
            return
        if event & OUT:
            self._flush_channel()
        try:
            changed = False
            for message, descriptors in channel.receive():
                changed |= self._obey(message, descriptors)
            if changed:
                self._tell(feed.Ready(tuple(self._pods)))
        except ChannelBroken as error:
            self._tell(feed.Misunderstood(str(error)))  # an agent that has gone does not hear it
            self._agent_gone(str(error))

    def _agent_gone(self, reason: str) -> None:
        """What is known stays true until somebody says otherwise."""
        channel, self._channel = self._channel, None
        if channel is not None:
            log.warning("no agent (%s): serving %d pods with what is known", reason, len(self._pods))
            self.loop.forget(channel.fileno())
            channel.close()

    def _tell(self, message: feed.ToAgent) -> None:
        if self._channel is not None:
            self._channel.send(message)
            self._flush_channel()

    def _flush_channel(self) -> None:
        channel = self._channel
        if channel is None:
            return
        try:
            done = channel.flush()
        except ChannelBroken as error:
            self._agent_gone(str(error))
            return
        self.loop.change(channel.fileno(), IN if done else IN | OUT)

    def _obey(self, message: feed.ToWorker, descriptors: tuple[int, ...]) -> bool:
        """Whether it has changed what is served."""
        match message:
            case feed.Mesh(update=update):
                self._update_mesh(update)
            case feed.Certificate(identity=identity):
                self._certificates.put(identity, message.chain, message.private_key, message.roots)
            case feed.CertificateMissing(identity=identity, reason=reason):
                self._certificates.miss(identity, reason)
            case feed.PodAdded():
                self._add_pod(message, descriptors)
            case feed.PodRemoved(uid=uid, linger=linger):
                self._remove_pod(uid, linger)
            case feed.Drain(deadline=deadline):
                self.drain(deadline)
            case feed.Ping():
                pass
            case feed.DescribeConnections(number=number):
                self._describe(number)
                return False
            case _:
                assert_never(message)
        return True

    def _describe(self, number: int) -> None:
        connections = tuple(record.value() for record in self._book.live())
        self._tell(feed.Connections(number, connections, self.counters()))

    def counters(self) -> dict[str, int]:
        """What is in each queue now (docs/limits.md), and how often something did not fit."""
        channel = self._channel
        return {
            "pods": len(self._pods),
            "connections": len(self._book),
            "connections_waiting_for_agent": len(self._arrivals),
            "connections_refused_waiting": self._arrivals.refused,
            "passed_held_bytes": sum(record.held() for record in self._book.live() if record.protocol == TCP),
            "tunnels": len(self._context.tunnels),
            "tunnels_unsent_bytes": sum(tunnel.unsent() for tunnel in self._context.tunnels),
            "lingering": len(self._lingering_sockets),
            "lingering_skipped": self._lingering_sockets.skipped,
            "accept_pauses": self._listeners.pauses,
            "timers": self.loop.timers,
            "records_waiting": self._book.waiting,
            "records_unsent_bytes": channel.unsent if channel else 0,
            "records_dropped": channel.dropped if channel else 0,
            "log_lines_dropped": self.lines.dropped if self.lines else 0,
            "dns_waiting": sum(pod.dns.outstanding for pod in self._pods.values() if pod.dns is not None),
            **self._certificates.counters(),
            **dict.fromkeys(COUNTED, 0),
            **self._dns_counts,
            **self._pool.counters(),
            **self._gate.counters(),
        }

    # --- the mesh

    def _update_mesh(self, update: MeshUpdate) -> None:
        self._mesh.apply(update)
        for key in self._arrivals.expected():
            if isinstance(key, str) and self._mesh.workload(WorkloadUid(key)) is not None:
                self._arrivals.came(key)
        policies_changed = update.replace or update.policies or update.removed_policies
        if policies_changed or any(workload.uid in self._pods for workload in update.workloads):
            self._judge.policy_changed()

    def _certificate_changed(self, identity: SpiffeId) -> None:
        self._pool.certificate_changed(identity)
        self._arrivals.came(identity)

    # --- pods

    def _add_pod(self, message: feed.PodAdded, descriptors: tuple[int, ...]) -> None:
        if message.uid in self._pods:
            self._remove_pod(message.uid, 0)
        try:
            pod = adopt(message, descriptors)
        except OSError as error:
            self._tell(feed.PodFailed(message.uid, f"its sockets cannot be used: {error.strerror}"))
            return
        if self._draining_until is not None:
            pod.close()
            self._tell(feed.PodFailed(message.uid, "this worker is draining"))
            return
        self._pods[message.uid] = pod
        for sock in pod.sockets.get(SocketRole.OUTBOUND, ()):
            self._listeners.open(sock, lambda *accepted: Outbound(self._context, self._pool, pod, *accepted).begin())
        for sock in pod.sockets.get(SocketRole.INBOUND, ()):
            self._listeners.open(sock, lambda *accepted: self._plaintext(pod, *accepted))
        for sock in pod.sockets.get(SocketRole.HBONE, ()):
            self._listeners.open(sock, lambda *accepted: self._hbone(pod, *accepted))
        pod.dns = self._dns_proxy(pod)

    def _dns_proxy(self, pod: Pod) -> DnsProxy:
        capture, settings = self._context.capture, self._settings

        def resolver(source: SocketAddress, sock: socket.socket) -> SocketAddress | None:
            if sock.type == socket.SOCK_STREAM:
                return capture.original_destination(sock.fileno())
            return capture.dns_resolver(pod.cookie, source)

        context = DnsContext(
            self.loop,
            self._mesh,
            Client(pod.namespace, settings.network),
            Zone(settings.cluster_domain, settings.preferred_namespace),
            random.random,
            pod.network_namespace.socket,
            resolver,
            self._dns_counts,
        )
        datagram, stream = (pod.sockets.get(role, []) for role in (SocketRole.DNS_UDP, SocketRole.DNS_TCP))
        return DnsProxy(context, datagram, stream)

    def _plaintext(self, pod: Pod, sock: socket.socket, remote: SocketAddress) -> None:
        try:
            local = local_address(sock)
        except OSError:
            reset(self.loop, sock)
            return
        Plaintext(self._context, pod, sock, local, remote).begin()

    def _hbone(self, pod: Pod, sock: socket.socket, remote: SocketAddress) -> None:
        try:
            local = local_address(sock)
        except OSError:
            reset(self.loop, sock)
            return
        self._gate.accept(pod, sock, local, remote)

    def _remove_pod(self, uid: WorkloadUid, linger: float) -> None:
        pod = self._pods.pop(uid, None)
        if pod is None:
            return
        for role in (SocketRole.OUTBOUND, SocketRole.INBOUND):
            self._close_all(pod.sockets.get(role, []))
        if pod.dns is not None:
            pod.dns.close()
        self._pool.pod_left(pod.cookie)
        self._lingering.add(pod)
        if linger > 0:
            self.loop.later(linger, lambda: self._forget_pod(pod))
        else:
            self._forget_pod(pod)

    def _forget_pod(self, pod: Pod) -> None:
        if pod in self._lingering:
            self._lingering.remove(pod)
            self._close_all(pod.sockets.get(SocketRole.HBONE, []))
            self._gate.pod_left(pod)
            pod.close()

    def _close_all(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            self._listeners.close(sock)

    # --- the end

    def drain(self, deadline: float) -> None:
        """No new connections; those that stand may go on for `deadline` seconds. Ends the loop."""
        if self._draining_until is not None:
            self._draining_until = min(self._draining_until, self.loop.now + deadline)
            return
        log.info("draining: %d connections have %g s", len(self._book), deadline)
        self._draining_until = self.loop.now + deadline
        for uid in list(self._pods):
            self._remove_pod(uid, 0)
        for pod in list(self._lingering):
            self._forget_pod(pod)
        self._pool.retire_all()
        self.loop.soon(self._drained)

    def _drained(self) -> None:
        assert self._draining_until is not None
        standing = len(self._book) or self._context.tunnels
        if standing and self.loop.now < self._draining_until:
            self.loop.later(DRAIN_POLL, self._drained)
            return
        if len(self._book):
            log.warning("%d connections are cut: the time to drain is over", len(self._book))
        for record in self._book.live():
            if record.carrier is not None:
                record.carrier.cut("the proxy has ended")
        self._gate.break_all("the proxy has ended")
        self.loop.soon(self.loop.stop)  # after what is staged has left
