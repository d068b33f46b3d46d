"""The controller's process: its parts, in the order in which they begin and end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from controller import collector, report
from controller.admin import Admin
from controller.authority.authority import Authority
from controller.compile.compiler import Changes, Compiler
from controller.deploying import Deployer
from controller.follow import Follower
from controller.home import open_home
from controller.publish.publisher import Publisher
from controller.publish.server import serve
from controller.settings import Settings
from controller.status import StatusWriter
from mesh.runtime.readiness import Readiness


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Raises StoreError, AuthorityError, ListenError, AdminError when it cannot begin."""
    collector.expect_much()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await _first(_controller(settings), _wait(stopped))


async def _controller(settings: Settings) -> None:
    """Until cancelled."""
    home = await open_home(settings)
    publisher, writer = Publisher(), StatusWriter(home.store)
    deployer = Deployer(home.store, home.waypoints, settings.mesh, home.collects)

    def look(compiler: Compiler, changes: Changes) -> None:
        writer.look(compiler, changes)
        deployer.look(compiler, changes.examined)

    async def write() -> None:
        """What only one controller does."""
        await _first(writer.run(), deployer.run())

    follower = Follower(home.store, settings.mesh, publisher.update, look)
    authority = Authority(home.issuer, settings.mesh.trust_domain)
    callers = (home.authenticator, follower.runs_on_node, follower.waypoint_of)
    server = serve(settings.listen, publisher, authority, *callers, home.names)
    readiness = Readiness(objects="the objects have not all been read", listening="ztunnels cannot connect yet")

    async def status() -> dict[str, Any]:
        return report.status(follower, publisher, readiness, await home.store.problems())

    admin = Admin(settings.admin, status, report.registry(follower, publisher), readiness)

    async def serve_ztunnels() -> None:
        """Only once all is known: before, a certificate would be refused for no good reason."""
        await follower.synced.wait()
        collector.keep_all()
        readiness.met("objects")
        address = await server.start()
        readiness.met("listening")
        print(f"controller: ready, serving ztunnels on {address}", flush=True)
        await asyncio.Event().wait()

    try:
        await admin.start()
        await _first(follower.run(), home.lead(write), serve_ztunnels())
    finally:
        await server.stop()
        await admin.stop()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def _first(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs all until one of them ends, and raises what ended it."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
