"""The mesh as this node knows it: first from the disk, then from the control plane; handed on change by change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mesh.model.state import MeshState
from mesh.model.update import MeshUpdate
from ztunnel.outbox import merged


class MeshFeed:
    """`publish` gets every change of what is known. Nothing is known, so nothing is allowed, until the first one."""

    def __init__(self, publish: Callable[[MeshUpdate], None]) -> None:
        self._publish = publish
        self._staged = MeshUpdate()  # until the control plane has told of all types once
        self.state = MeshState()
        self.known = False

    def restored(self, update: MeshUpdate) -> None:
        """What an earlier run knew; the control plane then says what differs from it."""
        self._apply(update)

    def received(self, update: MeshUpdate, complete: bool) -> None:
        """From the control plane. `complete`: it has told of all types of resources at least once. Before that, a
        policy may be missing for a workload that is there already."""
        if not self.known:
            self._staged = merged(self._staged, update)
            if not complete:
                return
            update, self._staged = replace(self._staged, replace=True), MeshUpdate()
        if update != MeshUpdate():
            self._apply(update)

    def _apply(self, update: MeshUpdate) -> None:
        self.state.apply(update)
        self.known = True
        self._publish(update)
