"""Writes the snapshot some time after a change, on a thread: many changes cost one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mesh.identity.credential import Credential
from mesh.model.update import MeshUpdate
from ztunnel.agent.snapshot import Snapshot

SETTLE = 1.0  # seconds: a mesh in motion is not written for each step


class Keeper:
    """`mesh` and `credentials` give what is to be kept, None when there is nothing worth keeping."""

    def __init__(
        self,
        snapshot: Snapshot,
        mesh: Callable[[], MeshUpdate | None],
        credentials: Callable[[], list[Credential]],
    ) -> None:
        self._snapshot = snapshot
        self._mesh = mesh
        self._credentials = credentials
        self._mesh_changed = False
        self._credentials_changed = False
        self._due = asyncio.Event()

    def mesh_changed(self) -> None:
        self._mesh_changed = True
        self._due.set()

    def credentials_changed(self) -> None:
        self._credentials_changed = True
        self._due.set()

    async def run(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(SETTLE)
            await self.save()

    async def save(self) -> None:
        """Writes what has changed since the last time."""
        self._due.clear()
        if self._mesh_changed and (mesh := self._mesh()) is not None:
            self._mesh_changed = False
            await asyncio.to_thread(self._snapshot.save_mesh, mesh)
        if self._credentials_changed:
            self._credentials_changed = False
            await asyncio.to_thread(self._snapshot.save_credentials, self._credentials())
