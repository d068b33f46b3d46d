"""The agent: what its parts tell each other. Changes flow one way - control plane, CA and node agent to the workers,
the disk and the metrics; records of connections flow back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import msgspec

from mesh.model.identity import SpiffeId
from mesh.model.update import MeshUpdate
from mesh.runtime import logs
from mesh.runtime.lines import LineWriter
from mesh.runtime.readiness import Readiness
from mesh.runtime.style import Style
from ztunnel.agent.access_log import AccessLog
from ztunnel.agent.admin import Servers, View
from ztunnel.agent.ca import CertificateAuthority
from ztunnel.agent.config import Config
from ztunnel.agent.enrolment import Enrolment
from ztunnel.agent.inquiry import Inquiry
from ztunnel.agent.keeper import Keeper
from ztunnel.agent.mesh_feed import MeshFeed
from ztunnel.agent.metrics import Metrics
from ztunnel.agent.pods import Pod, Pods, SocketOptions, Steering
from ztunnel.agent.process import Roster
from ztunnel.agent.queues import Queues
from ztunnel.agent.secrets import Secrets
from ztunnel.agent.snapshot import Snapshot
from ztunnel.agent.status import Status, version
from ztunnel.agent.telemetry import NameBook
from ztunnel.agent.workers import Parcel, Workers
from ztunnel.agent.xds import XdsClient
from ztunnel.feed import (
    Certificate,
    CertificateMissing,
    Closed,
    Connections,
    DescribeConnections,
    Mesh,
    Opened,
    ToAgent,
)

ROSTER = "workers.json"
WORKER_STARTS = "a worker is starting"
PREPARE_WITHIN = 2.0  # seconds that a pod's start may wait for its certificate

log = logging.getLogger("agent")


class Agent:
    """Runs until `stop` is called, then drains."""

    def __init__(self, config: Config, steering: Steering, writer: LineWriter) -> None:
        """Raises SnapshotError."""
        self._config = config
        self._writer = writer
        self._stopping = asyncio.Event()
        self._mesh = MeshFeed(self._mesh_changed)
        self._ca = CertificateAuthority(config.ca, config.node.cluster_id, config.secret_ttl)
        self._secrets = Secrets(self._ca.issue, self._certificate_changed)
        directory = config.process.state_directory
        self._snapshot = Snapshot(directory) if directory else None
        self._keeper = Keeper(self._snapshot, self._mesh_to_keep, self._secrets.credentials) if self._snapshot else None
        self._roster = Roster(directory and directory / ROSTER)
        self._workers = Workers(
            config.process.workers,
            self._everything,
            self._told,
            self._workers_changed,
            self._roster,
            config.process.worker_patience,
        )
        self._pods = Pods(
            config.node.cluster_id,
            SocketOptions(config.inpod.ipv6, config.inpod.port_reuse),
            steering,
            self._workers,
            self._pods_changed,
        )
        self._readiness = Readiness(
            mesh="mesh state not known yet",
            node_agent=f"no word from the node agent at {config.inpod.zds_path} yet",
            workers=WORKER_STARTS,
        )
        self._enrolment = Enrolment(config.inpod.zds_path, self._pods, self._node_agent, self._prepared)
        self._inquiry = Inquiry(self._ask)
        self._status = Status(
            config, self._mesh, self._secrets, self._pods, self._workers, self._writer, self._readiness
        )
        self._metrics = Metrics(version(), self._status.metrics)
        style = Style(as_json=config.process.log_json)
        self._names = NameBook(style.pairs)
        self._access_log = AccessLog(style)
        self._xds = XdsClient(config.xds, config.node, self._mesh.received, self._metrics)
        view = View(
            self._config_dump,
            lambda: msgspec.json.encode(self._mesh.state.snapshot()),
            self._live_connections,
            self._status.levels,
            self._set_levels,
            self.stop,
        )
        self._servers = Servers(view, self._metrics.registry, self._refresh_metrics, self._readiness)
        queues = Queues(
            self._mesh,
            self._xds,
            self._secrets,
            self._workers,
            self._inquiry,
            self._metrics.connections,
            self._servers,
            writer,
        )
        self._metrics.show(queues.metrics)

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Raises PortTaken."""
        try:
            await self._servers.start()
            self._restore()
            self._workers.start()
            await self._work()
            await self._drain()
        finally:
            await self._servers.stop()
            await self._ca.close()

    async def _work(self) -> None:
        """Until `stop`; a part that ends before is a fault that ends the agent."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._xds.run()), group.create_task(self._enrolment.run())]
            if self._keeper is not None:
                tasks.append(group.create_task(self._keeper.run()))
            await self._stopping.wait()
            for task in tasks:
                task.cancel()

    async def _drain(self) -> None:
        deadline = self._config.process.drain_deadline
        log.info("draining: connections may go on for %g s", deadline)
        self._readiness.wait_for("drain", "shutting down")
        draining = asyncio.create_task(self._workers.drain(deadline))
        await asyncio.sleep(0)  # the workers are told before the agent's own copies of the listeners go
        self._pods.close()
        await draining
        if self._keeper is not None:
            await self._keeper.save()
        self._secrets.close()

    def _restore(self) -> None:
        if self._snapshot is None:
            return
        self._secrets.keep(self._snapshot.load_credentials())
        if (mesh := self._snapshot.load_mesh()) is not None:
            log.info("starting from the last known state: %d workloads", len(mesh.workloads))
            self._mesh.restored(mesh)
            self._xds.resume(mesh)

    # --- changes

    def _mesh_changed(self, update: MeshUpdate) -> None:
        self._readiness.met("mesh")
        self._workers.publish(Mesh(update))
        self._want_certificates()
        if self._keeper is not None:
            self._keeper.mesh_changed()

    def _certificate_changed(self, message: Certificate | CertificateMissing) -> None:
        self._workers.publish(message)
        if self._keeper is not None:
            self._keeper.credentials_changed()

    def _pods_changed(self) -> None:
        self._want_certificates()
        if pending := self._pods.pending:
            reasons = "; ".join(f"{pod.namespace}/{pod.name}: {pod.error}" for pod in pending)
            self._readiness.wait_for("pods", reasons)
            return
        self._readiness.met("pods")
        self._replace_predecessor()

    def _workers_changed(self) -> None:
        if hanging := self._workers.hanging:
            self._readiness.wait_for("workers", f"worker {hanging[0]} gives no sign of life")
        elif self._workers.ready:
            self._readiness.met("workers")
        else:
            self._readiness.wait_for("workers", WORKER_STARTS)

    def _node_agent(self, trouble: str) -> None:
        if trouble:
            self._readiness.wait_for("node_agent", trouble)
            return
        self._readiness.met("node_agent")
        self._replace_predecessor()

    def _replace_predecessor(self) -> None:
        """Its workers go on until all that they may serve is served here."""
        if "node_agent" not in self._readiness.waiting and not self._pods.pending:
            self._roster.retire_orphans()

    def _want_certificates(self) -> None:
        self._secrets.want(frozenset(map(self._identity, self._pods)))

    def _identity(self, pod: Pod) -> SpiffeId:
        """The node agent knows the account, the control plane the trust domain. A pod that the CNI plugin holds is no
        workload yet: it has no address before it is held no more."""
        workload = self._mesh.state.workload(pod.workload)
        trust_domain = workload.trust_domain if workload else self._config.node.trust_domain
        return SpiffeId(trust_domain, pod.namespace, pod.service_account)

    async def _prepared(self, pod: Pod) -> None:
        """A pod that joins keeps its traffic only if its certificate is there; but it may join without."""
        if not self._mesh.known:
            return
        try:
            async with asyncio.timeout(PREPARE_WITHIN):
                await self._secrets.settled(self._identity(pod))
        except TimeoutError:
            log.warning("pod %s/%s joins without a certificate", pod.namespace, pod.name)

    def _everything(self) -> Iterator[Parcel]:
        """All that a new worker has to know."""
        if self._mesh.known:
            yield Mesh(self._mesh.state.snapshot()), ()
        for one in self._secrets.credentials():
            yield Certificate(one.identity, one.chain, one.private_key, one.roots), ()
        for missing in self._secrets.missing():
            yield missing, ()
        for pod in self._pods:
            if parcel := pod.parcel():
                yield parcel

    def _mesh_to_keep(self) -> MeshUpdate | None:
        return self._mesh.state.snapshot() if self._mesh.known else None

    # --- what workers and people say

    def _told(self, message: ToAgent) -> None:
        state, names = self._mesh.state, self._names.of
        match message:
            case Opened(connections=connections):
                for one in connections:
                    self._metrics.connections.opened(names(one, state))
            case Closed(connections=connections):
                for one in connections:
                    named = names(one, state)
                    self._metrics.connections.closed(one, named)
                    self._access_log.write(one, named)
            case Connections():
                self._inquiry.answered(message)

    def _ask(self, question: DescribeConnections) -> int:
        self._workers.publish(question)
        return self._workers.running

    async def _config_dump(self) -> dict[str, object]:
        connections, _ = await self._inquiry.connections()
        return self._status.config_dump(connections)

    async def _live_connections(self) -> list[dict[str, object]]:
        connections, _ = await self._inquiry.connections()
        return self._status.connections(connections)

    async def _refresh_metrics(self) -> None:
        connections, self._status.worker_counters = await self._inquiry.connections()
        state, names = self._mesh.state, self._names.of
        self._metrics.connections.live((one, names(one, state)) for one in connections)

    def _set_levels(self, text: str) -> None:
        """Raises ValueError."""
        levels = logs.parse_levels(text) if text else dict(self._config.process.log_levels)
        logs.configure(self._writer, self._config.process.log_json, levels)
