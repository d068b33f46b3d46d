"""The node agent's HTTP server: /healthz/ready and /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mesh.runtime.readiness import Readiness


class PortTaken(Exception):
    """The text names the port."""


class Figures(Collector):
    """What is counted, asked for when somebody reads it."""

    def __init__(
        self,
        pods: Callable[[], Mapping[str, int]],
        ztunnels: Callable[[], int],
        answered: Mapping[str, int],
        recaptured: Callable[[], int],
    ) -> None:
        self._pods, self._ztunnels, self._answered, self._recaptured = pods, ztunnels, answered, recaptured

    def collect(self) -> Iterator[Metric]:
        pods = GaugeMetricFamily("ambit_node_pods", "Pods of this node, by what they are to the mesh", labels=["state"])
        for state, count in self._pods().items():
            pods.add_metric([state], count)
        yield pods
        yield GaugeMetricFamily("ambit_node_ztunnels", "ztunnels that are connected", self._ztunnels())
        what = "Pods that were found captured no more though they should have been, and were captured again"
        yield CounterMetricFamily("ambit_node_recaptured_pods", what, self._recaptured())
        asked = CounterMetricFamily("ambit_node_admissions", "What the CNI plugin has asked", labels=["answer"])
        for answer, count in self._answered.items():
            asked.add_metric([answer], count)
        yield asked


class Server:
    """On one port, of one address or of all."""

    def __init__(self, address: str | None, port: int, readiness: Readiness, figures: Figures) -> None:
        self._address, self._port, self._readiness = address, port, readiness
        self._registry = CollectorRegistry()
        self._registry.register(figures)
        app = web.Application()
        app.add_routes([web.get("/healthz/ready", self._ready), web.get("/metrics", self._metrics)])
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Raises PortTaken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._address, self._port).start()
        except OSError as error:
            where = f"{self._address or '*'}:{self._port}"
            raise PortTaken(f"the node agent cannot listen on {where}: {error.strerror}") from error

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _ready(self, _: web.Request) -> web.Response:
        if self._readiness.ready:
            return web.Response(text="ready\n")
        reasons = "".join(f"{name}: {reason}\n" for name, reason in self._readiness.waiting.items())
        return web.Response(status=500, text=f"not ready\n{reasons}")

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})
