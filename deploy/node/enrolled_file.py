"""The names of enrolled namespaces, in a file for the CNI plugin: what it goes by while the node agent is away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from controller.store.interface import Object
from mesh.model.enrolment import Enrolment


def enrolled_namespaces(
    namespaces: Iterable[Object], pods: Iterable[Object], decide: Callable[[Object], Enrolment | None]
) -> frozenset[str]:
    """Those in which a new pod without labels is wanted in the mesh; and those in which a pod of this node is, by its
    own label: the next one of its kind will be. Pure."""
    names = {str(each["metadata"]["name"]) for each in namespaces}
    plain = ({"metadata": {"namespace": name, "name": ""}, "spec": {}} for name in names)
    wanted = (each for each in (*plain, *pods) if (found := decide(each)) is not None and found.wanted)
    return frozenset(str(each["metadata"]["namespace"]) for each in wanted)


class EnrolledFile:
    """One name per line. Replaced as a whole: a reader sees the old names or the new ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: frozenset[str] | None = None

    def write(self, names: frozenset[str]) -> None:
        """Raises OSError."""
        if names == self._written:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}")
        with open(temporary, "w") as file:
            file.write("".join(f"{name}\n" for name in sorted(names)))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        self._written = names

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self._written = None
