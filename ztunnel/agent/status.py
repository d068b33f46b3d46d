"""What the agent shows of itself: the config dump and the gauges of its metrics."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from prometheus_client.core import Metric

from mesh.runtime.lines import LineWriter
from mesh.runtime.logs import LEVELS
from mesh.runtime.readiness import Readiness
from ztunnel.agent import dump
from ztunnel.agent.config import Config
from ztunnel.agent.mesh_feed import MeshFeed
from ztunnel.agent.metrics import counter, gauge
from ztunnel.agent.pods import Pod, Pods
from ztunnel.agent.secrets import Secrets
from ztunnel.agent.workers import Workers
from ztunnel.feed import Connection


def version() -> str:
    try:
        return importlib.metadata.version("ambit")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


class Status:
    """Reads its owners when asked."""

    def __init__(
        self,
        config: Config,
        mesh: MeshFeed,
        secrets: Secrets,
        pods: Pods,
        workers: Workers,
        writer: LineWriter,
        readiness: Readiness,
    ) -> None:
        self._config = config
        self._mesh = mesh
        self._secrets = secrets
        self._pods = pods
        self._workers = workers
        self._writer = writer
        self._readiness = readiness
        self.worker_counters: dict[str, int] = {}

    def config_dump(self, connections: Iterable[Connection]) -> dict[str, Any]:
        """Istio's keys (src/admin.rs), and `notReady`: what is waited for, with the reasons."""
        live = list(connections)
        return {
            **dump.mesh(self._mesh.state),
            "staticConfig": {"workloads": [], "policies": [], "services": []},
            "version": {"version": version(), "component": "ztunnel"},
            "config": self._settings(),
            "notReady": dict(self._readiness.waiting),
            "certificates": [dump.certificate(*each) for each in self._secrets.describe()],
            "workloadState": {pod.uid: _pod(pod, live) for pod in self._pods},
        }

    def connections(self, connections: Sequence[Connection]) -> list[dict[str, object]]:
        return [dump.connection(one) for one in connections]

    def levels(self) -> str:
        """As RUST_LOG has it."""
        names = {number: name for name, number in reversed(LEVELS.items())}
        loggers = {"": logging.getLogger()} | {
            name: one for name, one in logging.Logger.manager.loggerDict.items() if isinstance(one, logging.Logger)
        }
        return ",".join(
            f"{name}={names[one.level]}".removeprefix("=") for name, one in loggers.items() if one.level in names
        )

    def metrics(self) -> Iterator[Metric]:
        pods = list(self._pods)
        pending = len(self._pods.pending)
        yield gauge("workload_manager_active_proxy_count", "Pods that are served", {(): len(pods) - pending})
        yield gauge("workload_manager_pending_proxy_count", "Pods that cannot be served yet", {(): pending})
        yield counter("workload_manager_proxies_started", "Pods that joined", self._pods.started)
        yield counter("workload_manager_proxies_stopped", "Pods that left", self._pods.stopped)
        yield gauge(
            "ambit_certificate_expiry_timestamp_seconds",
            "When the certificate of an identity expires",
            {(str(one.identity),): one.not_after for one in self._secrets.credentials()},
            ("identity",),
        )
        yield counter("ambit_worker_restarts", "Workers that ended unasked", self._workers.restarts)
        yield counter("ambit_log_lines_dropped", "Log lines that were not read fast enough", self._writer.dropped)
        counters = {(name,): float(value) for name, value in self.worker_counters.items()}
        yield gauge("ambit_worker", "What the workers count, by name", counters, ("name",))

    def _settings(self) -> object:
        """Without the token, which may be given outright."""
        config = self._config
        shown = replace(
            config, xds=replace(config.xds, token="", headers={}), ca=replace(config.ca, token="", headers={})
        )
        return msgspec.to_builtins(shown, enc_hook=str)


def _pod(pod: Pod, live: Iterable[Connection]) -> dict[str, Any]:
    mine = [one for one in live if one.workload == pod.workload]
    return {
        "state": "Pending" if pod.error else "Up",
        "info": {"name": pod.name, "namespace": pod.namespace, "serviceAccount": pod.service_account},
        "connections": {
            direction: [_brief(one) for one in mine if one.direction == direction]
            for direction in ("inbound", "outbound")
        },
        **({"error": pod.error} if pod.error else {}),
    }


def _brief(one: Connection) -> dict[str, str]:
    return {
        "src": str(one.source),
        "originalDst": str(one.destination),
        "actualDst": str(one.actual or one.destination),
        "protocol": one.protocol,
    }
