"""One waypoint process: what its parts tell each other, from start to drained end."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import msgspec
from prometheus_client.exposition import choose_encoder

from mesh.identity.tls import TlsIdentity
from mesh.model import ports
from mesh.runtime import logs
from mesh.runtime.lines import LineWriter
from mesh.runtime.pages import forget_startup_code
from mesh.runtime.readiness import Readiness
from mesh.runtime.style import Style
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest
from waypoint.admin.dump import config_dump, gauges
from waypoint.admin.pages import Page, Pages, Shown
from waypoint.config import Config
from waypoint.control.certificate import CertificateKeeper
from waypoint.control.xds import XdsClient
from waypoint.core import Core
from waypoint.telemetry.access_log import AccessLog
from waypoint.telemetry.metrics import Metrics
from waypoint.telemetry.observer import Telemetry

BACKLOG = 4096
LOOPBACK = "127.0.0.1"
DRAIN_POLL = 0.05  # seconds between looks whether anything is still under way

log = logging.getLogger("waypoint")


class CannotListen(Exception):
    """The text names the port."""


class Process:
    """Runs until `stop` is called, then drains."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, writer: LineWriter, *, alone: bool) -> None:
        """`alone`: it has the ports of metrics, readiness and admin, which one worker of several has."""
        self._config = config
        self._loop = loop
        self._writer = writer
        self._alone = alone
        self._stopping = asyncio.Event()
        self._metrics = Metrics(_version(), loop.time, lambda: gauges(self._core))
        access = AccessLog(writer, Style(config.log_json), loop.time) if config.access_log else None
        telemetry = Telemetry(self._metrics.traffic, access)
        self._core = Core(loop, config.own, config.identity.trust_domain, telemetry)
        self._readiness = Readiness(
            mesh="the control plane has not told of everything yet", certificate="there is no certificate yet"
        )
        self._certificate = CertificateKeeper(
            config.ca, config.cluster_id, config.identity, config.secret_ttl, self._certified
        )
        self._xds = XdsClient(
            config.xds, config.cluster_id, _node(config), self._core.world, lambda: self._readiness.met("mesh")
        )
        self._servers: list[asyncio.Server] = []

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Raises CannotListen."""
        await self._listen()
        tasks = [self._loop.create_task(self._certificate.run()), self._loop.create_task(self._xds.run())]
        self._loop.call_later(5.0, forget_startup_code)
        try:
            stopping = self._loop.create_task(self._stopping.wait())
            done, _ = await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a part that ends before is a fault that ends the process
            await self._drain()
        finally:
            for task in tasks:
                task.cancel()
            for server in self._servers:
                server.close()

    async def _drain(self) -> None:
        deadline = self._loop.time() + self._config.drain_deadline
        log.info("draining: requests may go on for %g s", self._config.drain_deadline)
        self._readiness.wait_for("drain", "shutting down")
        self._servers[0].close()  # HBONE: who comes now goes to another worker or pod
        self._core.drain()
        while self._core.busy and self._loop.time() < deadline:  # noqa: ASYNC110 - a stream's end tells nobody
            await asyncio.sleep(DRAIN_POLL)
        self._core.upstreams.close_idle()
        self._core.cut("the waypoint ends")
        await asyncio.sleep(0)

    def _certified(self, identity: TlsIdentity | None) -> None:
        self._core.identity = identity
        if identity is not None:
            self._readiness.met("certificate")
        else:
            self._readiness.wait_for("certificate", self._certificate.reason)

    # --- ports

    async def _listen(self) -> None:
        config = self._config
        await self._open(config.listen, ports.HBONE, self._core.tunnels.protocol, shared=True)
        if self._alone:
            await self._open(config.listen, ports.METRICS, self._pages(self._metric_pages()))
            await self._open(config.listen, ports.READINESS, self._pages({"/healthz/ready": Page(self._ready)}))
            await self._open(LOOPBACK, ports.ADMIN, self._pages(self._admin_pages()))

    async def _open(
        self, host: str, port: int, factory: Callable[[], asyncio.BaseProtocol], shared: bool = False
    ) -> None:
        try:
            server = await self._loop.create_server(
                factory, host or None, port, backlog=BACKLOG, reuse_port=shared or None
            )
        except OSError as error:
            raise CannotListen(f"cannot listen on {host or '*'}:{port}: {error.strerror or error}") from error
        for sock in server.sockets:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._servers.append(server)

    def _pages(self, pages: dict[str, Page]) -> Callable[[], asyncio.BaseProtocol]:
        return Pages(self._loop, pages).protocol

    def _metric_pages(self) -> dict[str, Page]:
        def show(query: object, headers: object) -> Shown:
            encode, kind = choose_encoder("")
            return Shown(encode(self._metrics.registry), kind)

        return {"/metrics": Page(show), "/stats/prometheus": Page(show)}

    def _ready(self, query: object, headers: object) -> Shown:
        if self._readiness.ready:
            return Shown(b"ready\n")
        reasons = "".join(f"{name}: {reason}\n" for name, reason in self._readiness.waiting.items())
        return Shown(f"not ready\n{reasons}".encode(), status=503)

    def _admin_pages(self) -> dict[str, Page]:
        def dump(query: object, headers: object) -> Shown:
            return Shown(config_dump(self._core, self._certificate), "application/json")

        def mesh(query: object, headers: object) -> Shown:
            return Shown(msgspec.json.encode(self._core.world.mesh.snapshot()), "application/json")

        def quit_(query: object, headers: object) -> Shown:
            self.stop()
            return Shown(b"shutdown now\n")

        def index(query: object, headers: object) -> Shown:
            return Shown("".join(f"{path}\n" for path in pages).encode())

        pages = {
            "/": Page(index),
            "/config_dump": Page(dump),
            "/mesh": Page(mesh),
            "/logging": Page(self._logging, frozenset({"GET", "POST"})),
            "/quitquitquit": Page(quit_, frozenset({"POST"})),
        }
        return pages

    def _logging(self, query: object, headers: object) -> Shown:
        """Raises ValueError."""
        text = query.get("level", "") if isinstance(query, dict) else ""
        if text:
            logs.configure(self._writer, self._config.log_json, logs.parse_levels(text))
        return Shown(f"{logging.getLevelName(logging.getLogger().level).lower()}\n".encode())


def _node(config: Config) -> DeltaDiscoveryRequest.Node:
    """How a waypoint presents itself: as Istio's do, of type waypoint."""
    own = config.own
    message = DeltaDiscoveryRequest.Node(
        id=f"waypoint~{config.instance_ip}~{config.pod_name}.{own.namespace}~{own.namespace}.svc.cluster.local"
    )
    message.metadata.update(
        {
            "NAME": config.pod_name,
            "NAMESPACE": own.namespace,
            "INSTANCE_IPS": config.instance_ip,
            "NODE_NAME": config.node_name,
            "GATEWAY_NAME": own.gateway,
            "SERVICE_ACCOUNT": config.identity.service_account,
        }
    )
    return message


def _version() -> str:
    try:
        return version("ambit")
    except PackageNotFoundError:
        return "unknown"
