"""Who refers to what, in both directions: so that a change of what is referred to finds those that it concerns."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Source = TypeVar("Source", bound=Hashable)
Target = TypeVar("Target", bound=Hashable)


class Links(Generic[Source, Target]):
    """A many-to-many relation. Cost of a change: the links of that one source."""

    def __init__(self) -> None:
        self._targets: dict[Source, frozenset[Target]] = {}
        self._sources: dict[Target, set[Source]] = {}

    def replace(self, source: Source, targets: Iterable[Target]) -> frozenset[Target]:
        """From now on `source` refers to exactly `targets`. Returns these and the former ones."""
        before, after = self._targets.pop(source, frozenset()), frozenset(targets)
        if after:
            self._targets[source] = after
        for gone in before - after:
            self._sources[gone].discard(source)
            if not self._sources[gone]:
                del self._sources[gone]
        for new in after - before:
            self._sources.setdefault(new, set()).add(source)
        return before | after

    def sources(self, target: Target) -> frozenset[Source]:
        return frozenset(self._sources.get(target, ()))

    def targets(self, source: Source) -> frozenset[Target]:
        return self._targets.get(source, frozenset())
