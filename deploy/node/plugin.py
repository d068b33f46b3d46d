"""The CNI plugin is in the node's chain while this agent serves it: it is put there, and stays when the agent ends."""

from __future__ import annotations

import asyncio

from deploy.cni.conflist import Settings as PluginSettings
from deploy.cni.install import Installer, InstallError
from deploy.node.admission import Refused
from deploy.node.settings import Settings
from mesh.runtime.readiness import Readiness

CONDITION = "cni"
NOT_YET = "the CNI plugin is not in the node's chain yet"
LOOK_EVERY = 0.5  # seconds


class Plugin:
    """Raises ValueError when the settings do not ask for it."""

    def __init__(self, settings: Settings, readiness: Readiness) -> None:
        if settings.cni is None:
            raise ValueError("the settings ask for no CNI plugin")
        run = settings.cni.host_run
        told = PluginSettings(str(run / settings.cni_socket.name), str(run / settings.enrolled_namespaces.name))
        self._installer = Installer(settings.cni.conf_dir, settings.cni.bin_dir, told, settings.cni.binary)
        self._readiness = readiness
        self._running: asyncio.Task[None] | None = None
        readiness.wait_for(CONDITION, NOT_YET)

    async def run(self) -> None:
        """Until cancelled, or `remove`."""
        self._running = asyncio.create_task(self._installer.run())
        telling = asyncio.create_task(self._tell())
        try:
            await asyncio.wait({self._running})
            if not self._running.cancelled():
                self._running.result()
        finally:
            self._running.cancel()
            telling.cancel()

    async def _tell(self) -> None:
        while True:
            if self._installer.installed.is_set():
                self._readiness.met(CONDITION)
            else:
                self._readiness.wait_for(CONDITION, self._installer.problem or NOT_YET)
            await asyncio.sleep(LOOK_EVERY)

    def remove(self) -> None:
        """Raises Refused."""
        if self._running:
            self._running.cancel()
        try:
            self._installer.remove()
        except InstallError as error:
            raise Refused(str(error)) from error
