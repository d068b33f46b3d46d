"""Namespaces in which pods come into the mesh by their own label: known of the whole cluster, and not forgotten.

The CNI plugin knows a new pod's namespace, but not its labels: while the agent is away it can only go by what pods of
the namespace were before. So a pod on any node counts, and one that has gone still does: the next of its kind will be.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterable

from controller.store import kinds
from controller.store.interface import Object, Store, StoreError
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE, decide
from mesh.runtime.backoff import Backoff

log = logging.getLogger("own-labels")

SELECTOR = f"{DATAPLANE_MODE}={AMBIENT}"


def joins_by_itself(pod: Object, excluded: Collection[str]) -> bool:
    """Whether it would be in the mesh in a namespace without a label. Pure."""
    metadata, spec = pod["metadata"], pod["spec"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    host_network = bool(spec.get("hostNetwork"))
    return decide(metadata["namespace"], {}, labels, annotations, host_network, excluded).wanted


class OwnLabels:
    """Follows the store's pods, which need be no more than those of SELECTOR; keeps names only."""

    def __init__(
        self, store: Store, excluded: Collection[str], known: Iterable[str], changed: Callable[[], None]
    ) -> None:
        """`known` from an earlier life; `changed` is called when a namespace is new."""
        self._store, self._excluded, self._changed = store, excluded, changed
        self.namespaces = set(known)

    async def run(self) -> None:
        backoff = Backoff(0.1, 10.0)
        while True:
            try:
                async for event in self._store.watch((kinds.POD,)):
                    backoff.succeeded()
                    if event.object is not None:
                        self._note(event.object)
            except (StoreError, OSError) as error:
                log.warning("the watch of pods with a label of their own ended and is begun again: %s", error)
            await asyncio.sleep(backoff.after_failure(random.random()))

    def _note(self, pod: Object) -> None:
        namespace = pod["metadata"]["namespace"]
        if namespace not in self.namespaces and joins_by_itself(pod, self._excluded):
            self.namespaces.add(namespace)
            self._changed()
