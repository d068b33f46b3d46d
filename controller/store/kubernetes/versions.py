"""Which of its versions an API server has of each kind: tried in turn, the one that answers is kept."""

from __future__ import annotations

import threading

from controller.store.interface import Kind


class Versions:
    """Safe for several threads. Kinds are those of `kinds`, in the version preferred there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._served: dict[Kind, str] = {}

    def served(self, kind: Kind) -> Kind:
        """In the version that answered last, or is tried first."""
        with self._lock:
            return kind.in_version(self._served.get(kind, kind.version))

    def next(self, kind: Kind) -> bool:
        """The present one is not there. Returns False when all have been tried and it is the first one's turn again."""
        versions = (kind.version, *kind.versions)
        with self._lock:
            place = versions.index(self._served.get(kind, kind.version)) + 1
            self._served[kind] = versions[place % len(versions)]
        return place < len(versions)
