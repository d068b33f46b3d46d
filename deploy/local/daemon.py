"""`python -m deploy.local.daemon` runs a mesh: the controller, a process per node, and the cluster's controllers.

It holds a lock while it lives, so that there is one of it. Nothing depends on it for cleaning up: `down` finds what
there is by itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sys
from typing import IO

from controller.store.directory import DirectoryStore
from controller.store.interface import StoreError
from deploy.local import description, programs
from deploy.local.addresses import NodeAddresses
from deploy.local.controllers.loop import ControllerLoop
from deploy.local.node import registration
from deploy.local.paths import Instance
from deploy.local.supervise import Child, bound_log, write_fares
from mesh.runtime import logs
from mesh.runtime.lines import LineWriter
from mesh.runtime.signals import until_signalled

log = logging.getLogger("daemon")

LOG_GLANCE = 10.0  # seconds between looks at the size of logs


class Daemon:
    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._nodes = {node.name: node for node in description.nodes(instance)}
        self._store = DirectoryStore(instance.objects)
        self._children = [Child(programs.controller(instance))]
        self._children += [Child(programs.node(instance, name)) for name in self._nodes]
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled. Raises StoreError."""
        controllers = ControllerLoop(self._store)
        await controllers.begin()
        async with asyncio.TaskGroup() as tasks:
            for child in self._children:
                child.changed = lambda child=child: self._note(child)  # type: ignore[misc]
                tasks.create_task(child.run())
            tasks.create_task(controllers.run())
            tasks.create_task(self._bound_logs())

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_GLANCE)
            for path in self._instance.logs.rglob("*.log"):
                await asyncio.to_thread(bound_log, path)

    def _note(self, child: Child) -> None:
        """Tell `status` how the children fare, and the cluster when a node is without its process."""
        write_fares(self._instance.fares, self._children)
        node = self._nodes.get(child.program.name)
        if node is not None and child.pid == 0:
            task = asyncio.create_task(self._lost(node, child.last_end))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _lost(self, node: NodeAddresses, why: str) -> None:
        try:
            await registration.set_ready(self._store, node, False, "NodeStatusUnknown", f"its process {why}")
        except StoreError as error:
            log.debug("%s", error)


def is_running(instance: Instance) -> bool:
    """Whether a daemon of this mesh lives."""
    try:
        with instance.daemon.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(instance: Instance) -> IO[str]:
    """Raises BlockingIOError: another daemon of this mesh lives."""
    file = instance.daemon.open("a+")
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


async def run(instance: Instance) -> None:
    """Until SIGTERM or SIGINT."""
    await until_signalled(Daemon(instance).run())
    log.info("the daemon ends")


def main() -> int:
    instance = Instance.current()
    writer = LineWriter(sys.stderr.fileno())
    logs.configure(writer, False, logs.parse_levels("info"))
    try:
        with _lock(instance):
            asyncio.run(run(instance))
    except (OSError, StoreError) as error:
        log.error("the daemon of %s: %s", instance.name, error)
        return 1
    finally:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
