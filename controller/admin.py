"""The controller's HTTP server for people and probes: /status, /metrics, /ready."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from mesh.model.address import SocketAddress
from mesh.runtime.readiness import Readiness


class AdminError(Exception):
    """The server cannot be opened; the text names the address."""


class Admin:
    """`start` and `stop` once each."""

    def __init__(
        self,
        listen: SocketAddress,
        status: Callable[[], Awaitable[dict[str, Any]]],
        registry: CollectorRegistry,
        readiness: Readiness,
    ) -> None:
        self._listen = listen
        self._status = status
        self._registry = registry
        self._readiness = readiness
        app = web.Application()
        app.add_routes(
            [web.get("/status", self._show), web.get("/metrics", self._metrics), web.get("/ready", self._ready)]
        )
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Raises AdminError."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._listen.ip, self._listen.port).start()
        except OSError as error:
            raise AdminError(
                f"the admin server cannot listen on {self._listen}: {os.strerror(error.errno or 0)}"
            ) from error

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _show(self, _: web.Request) -> web.Response:
        body = msgspec.json.format(msgspec.json.encode(await self._status()))
        return web.Response(body=body, content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _ready(self, _: web.Request) -> web.Response:
        waiting = "".join(f"{reason}\n" for reason in self._readiness.waiting.values())
        return web.Response(status=200 if self._readiness.ready else 503, text=waiting or "ready\n")
