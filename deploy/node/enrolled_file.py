"""The names of enrolled namespaces, in a file for the CNI plugin: what it goes by while the node agent is away."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from controller.store.interface import Object
from mesh.model.enrolment import Enrolment

OWN_LABEL = "#own-label "  # before a name: no name of a namespace, so that the plugin passes it over


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Namespaces in which a pod without a label is wanted in the mesh, and those where pods have their own."""

    labelled: frozenset[str] = frozenset()
    own_label: frozenset[str] = frozenset()


def enrolled_namespaces(
    namespaces: Iterable[Object], own_label: Collection[str], decide: Callable[[Object], Enrolment | None]
) -> Enrolled:
    """Only of namespaces that exist. Pure."""
    names = {str(each["metadata"]["name"]) for each in namespaces}
    plain = ({"metadata": {"namespace": name, "name": ""}, "spec": {}} for name in names)
    wanted = (each for each in plain if (found := decide(each)) is not None and found.wanted)
    return Enrolled(frozenset(str(each["metadata"]["namespace"]) for each in wanted), frozenset(own_label) & names)


class EnrolledFile:
    """One name per line. Replaced as a whole: a reader sees the old names or the new ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: Enrolled | None = None

    @property
    def written(self) -> Enrolled:
        """By this agent, last."""
        return self._written or Enrolled()

    def own_label(self) -> frozenset[str]:
        """As an earlier agent has written them. Raises OSError: the file is there and cannot be read."""
        try:
            lines = self._path.read_text().splitlines()
        except FileNotFoundError:
            return frozenset()
        return frozenset(line.removeprefix(OWN_LABEL) for line in lines if line.startswith(OWN_LABEL))

    def write(self, enrolled: Enrolled) -> None:
        """Raises OSError."""
        if enrolled == self._written:
            return
        names = sorted(enrolled.labelled | enrolled.own_label)
        lines = [*names, *(OWN_LABEL + name for name in sorted(enrolled.own_label))]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}")
        with open(temporary, "w") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self._path)
        self._written = enrolled

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self._written = None
