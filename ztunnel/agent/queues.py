"""What waits in the agent's queues, and what did not fit into them: the bounds are in docs/limits.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric

from mesh.runtime.lines import LineWriter
from ztunnel.agent.admin import Servers
from ztunnel.agent.inquiry import Inquiry
from ztunnel.agent.mesh_feed import MeshFeed
from ztunnel.agent.metrics import ConnectionMetrics, counter, gauge
from ztunnel.agent.secrets import Secrets
from ztunnel.agent.workers import Workers
from ztunnel.agent.xds import XdsClient


@dataclass(frozen=True, slots=True)
class Queues:
    """Reads its owners when asked."""

    mesh: MeshFeed
    xds: XdsClient
    secrets: Secrets
    workers: Workers
    inquiry: Inquiry
    connections: ConnectionMetrics
    servers: Servers
    writer: LineWriter

    def metrics(self) -> Iterator[Metric]:
        yield gauge("ambit_mesh_resources", "What is known of the mesh, by kind", self._resources(), ("kind",))
        yield gauge("ambit_certificates", "Identities of this node, by state", self._certificates(), ("state",))
        yield gauge("ambit_worker_outbox_messages", "Messages workers have not read", {(): self.workers.untold})
        yield counter("ambit_inquiries_incomplete", "Questions not answered in time", self.inquiry.incomplete)
        yield gauge("ambit_log_lines_waiting", "Log lines that are not written yet", {(): self.writer.waiting})
        yield gauge("ambit_metric_series", "Sets of labels of connections", {(): self.connections.series})
        yield counter("ambit_connections_unnamed", "Connections counted without names", self.connections.unnamed)
        yield gauge("ambit_http_connections", "Connections to this agent's servers", {(): self.servers.connections})
        yield counter("ambit_http_connections_cut", "Connections that had to make room", self.servers.cut)

    def _resources(self) -> dict[tuple[str], float]:
        known = self.mesh.state.snapshot()
        return {
            ("workloads",): len(known.workloads),
            ("services",): len(known.services),
            ("policies",): len(known.policies),
            ("refused",): self.xds.refused,
        }

    def _certificates(self) -> dict[tuple[str], float]:
        return {
            ("held",): len(self.secrets.credentials()),
            ("missing",): len(self.secrets.missing()),
            ("requested",): self.secrets.requested,
        }
