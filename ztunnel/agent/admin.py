"""The agent's three HTTP servers: admin (loopback only), metrics, readiness. Paths are Istio's (src/admin.rs)."""

from __future__ import annotations

import asyncio
import html
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from mesh.model import ports
from mesh.runtime.readiness import Readiness

LOOPBACK = "127.0.0.1"
# Connections to one server at once. Beyond it the oldest is cut: an answer takes milliseconds, so that one is idle, and
# nobody who only holds connections can keep the node's own monitoring out, or take the agent's descriptors.
MOST_CONNECTIONS = 128

_PAGES = {
    "/config_dump": "what this ztunnel knows: workloads, services, policies, certificates (no keys)",
    "/mesh": "workloads, services and policies as the values that connections are decided by",
    "/connections": "connections that live now",
    "/logging": "log levels; POST ?level=debug or ?level=info,access=off changes them",
    "/quitquitquit": "POST drains and ends this ztunnel",
}


class PortTaken(Exception):
    """A server cannot be opened; the text names the port."""


@dataclass(frozen=True, slots=True)
class View:
    """What the admin server shows and does. `set_levels` raises ValueError."""

    config_dump: Callable[[], Awaitable[dict[str, Any]]]
    mesh: Callable[[], bytes]  # JSON of a MeshUpdate
    connections: Callable[[], Awaitable[list[dict[str, Any]]]]
    levels: Callable[[], str]
    set_levels: Callable[[str], None]
    quit: Callable[[], None]


class Servers:
    """Started and stopped together."""

    def __init__(
        self, view: View, registry: CollectorRegistry, refresh: Callable[[], Awaitable[None]], readiness: Readiness
    ) -> None:
        self._sites = (
            ("admin", LOOPBACK, ports.ADMIN, _admin(view)),
            ("metrics", None, ports.METRICS, _metrics(registry, refresh)),
            ("readiness", None, ports.READINESS, _readiness(readiness)),
        )
        self._runners: list[web.AppRunner] = []
        self._listeners: list[asyncio.Server] = []
        self._doors: list[_Door] = []

    @property
    def connections(self) -> int:
        return sum(len(door.open()) for door in self._doors)

    @property
    def cut(self) -> int:
        """Connections that had to make room."""
        return sum(door.cut for door in self._doors)

    async def start(self) -> None:
        """Raises PortTaken."""
        for name, host, port, app in self._sites:
            runner = web.AppRunner(app, access_log=None)
            self._runners.append(runner)
            await runner.setup()
            assert runner.server is not None
            door = _Door(runner.server)
            self._doors.append(door)
            try:
                self._listeners.append(await asyncio.get_running_loop().create_server(door.protocol, host, port))
            except OSError as error:
                where = f"{host or '*'}:{port}"
                raise PortTaken(f"the {name} server cannot listen on {where}: {error.strerror}") from error

    async def stop(self) -> None:
        for listener in self._listeners:
            listener.close()
        for runner in self._runners:
            await runner.cleanup()


class _Door:
    """Lets connections in, and the oldest out when there are too many."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self.cut = 0

    def open(self) -> list[web.RequestHandler]:
        return [one for one in self._server.connections if one.transport is not None]

    def protocol(self) -> asyncio.Protocol:
        open_ = self.open()
        if len(open_) >= MOST_CONNECTIONS:
            self.cut += 1
            if (transport := open_[0].transport) is not None:
                transport.abort()
            open_[0].force_close()
        return self._server()


def _admin(view: View) -> web.Application:
    async def index(_: web.Request) -> web.Response:
        rows = "".join(f'<li><a href="{path}">{path}</a>: {html.escape(what)}' for path, what in _PAGES.items())
        return web.Response(
            text=f"<!doctype html><title>ztunnel</title><h1>ztunnel</h1><ul>{rows}</ul>", content_type="text/html"
        )

    async def config_dump(_: web.Request) -> web.Response:
        return _json(await view.config_dump())

    async def mesh(_: web.Request) -> web.Response:
        return web.Response(body=view.mesh(), content_type="application/json")

    async def connections(_: web.Request) -> web.Response:
        return _json(await view.connections())

    async def show_logging(_: web.Request) -> web.Response:
        return web.Response(text=view.levels() + "\n")

    async def change_logging(request: web.Request) -> web.Response:
        try:
            view.set_levels(request.query.get("level", "" if "reset" in request.query else "info"))
        except ValueError as error:
            return web.Response(status=400, text=f"{error}\n")
        return await show_logging(request)

    async def quit_(_: web.Request) -> web.Response:
        view.quit()
        return web.Response(text="shutdown now\n")

    app = web.Application()
    app.add_routes(
        [
            web.get("/", index),
            web.get("/config_dump", config_dump),
            web.get("/mesh", mesh),
            web.get("/connections", connections),
            web.get("/logging", show_logging),
            web.post("/logging", change_logging),
            web.post("/quitquitquit", quit_),
        ]
    )
    return app


def _metrics(registry: CollectorRegistry, refresh: Callable[[], Awaitable[None]]) -> web.Application:
    async def show(request: web.Request) -> web.Response:
        await refresh()
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        response = web.Response(body=encode(registry), headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    app = web.Application()
    app.add_routes([web.get("/metrics", show), web.get("/stats/prometheus", show)])
    return app


def _readiness(readiness: Readiness) -> web.Application:
    async def ready(_: web.Request) -> web.Response:
        if readiness.ready:
            return web.Response(text="ready\n")
        reasons = "".join(f"{name}: {reason}\n" for name, reason in readiness.waiting.items())
        return web.Response(status=500, text=f"not ready\n{reasons}")

    async def alive(_: web.Request) -> web.Response:
        """Whatever it waits for: who does not even answer this hangs, and is to be started again."""
        return web.Response(text="alive\n")

    app = web.Application()
    app.add_routes([web.get("/healthz/ready", ready), web.get("/healthz/live", alive)])
    return app


def _json(value: object) -> web.Response:
    return web.Response(text=json.dumps(value, indent=2) + "\n", content_type="application/json")
