"""Look-up tables of the mesh state: several values under one key, preferred ones first, nothing left when they go."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Hashable, Iterable
from itertools import accumulate
from typing import Any, Generic, TypeVar

from mesh.model.address import Ip, is_v6, prefix
from mesh.model.workload import Workload

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Ranked(Generic[K, V]):
    """Few values per key (pods that share an address), always in order of `rank`: a look-up is one dict access."""

    def __init__(self, rank: Callable[[V], Any]) -> None:
        self._rank = rank
        self._values: dict[K, tuple[V, ...]] = {}

    def add(self, key: K, value: V) -> None:
        self._values[key] = tuple(sorted((*self._values.get(key, ()), value), key=self._rank))

    def discard(self, key: K, value: V) -> None:
        left = tuple(each for each in self._values.get(key, ()) if each is not value)
        if left:
            self._values[key] = left
        else:
            self._values.pop(key, None)

    def get(self, key: K) -> tuple[V, ...]:
        return self._values.get(key, ())

    def contents(self) -> dict[K, tuple[V, ...]]:
        return dict(self._values)


class Grouped(Generic[K, V]):
    """Many values per key (endpoints of a service), by name: a change costs the same however large the group is."""

    def __init__(self) -> None:
        self._groups: dict[K, dict[str, V]] = {}

    def put(self, key: K, name: str, value: V) -> None:
        self._groups.setdefault(key, {})[name] = value

    def discard(self, key: K, name: str) -> None:
        group = self._groups.get(key)
        if group is None:
            return
        group.pop(name, None)
        if not group:
            del self._groups[key]

    def get(self, key: K) -> tuple[V, ...]:
        """In order of name."""
        group = self._groups.get(key)
        return tuple(group[name] for name in sorted(group)) if group else ()

    def keys(self) -> tuple[K, ...]:
        return tuple(self._groups)

    def contents(self) -> dict[K, dict[str, V]]:
        return {key: dict(group) for key, group in self._groups.items()}


class Blocks(Generic[V]):
    """Values by address block; a look-up tries each block length in use, longest first."""

    def __init__(self, rank: Callable[[V], Any]) -> None:
        self._blocks: Ranked[tuple[str, bool, int, int], V] = Ranked(rank)
        self._lengths: dict[tuple[str, bool], dict[int, int]] = {}  # how many values each length has

    def add(self, network: str, ip: Ip, length: int, value: V) -> None:
        lengths = self._lengths.setdefault((network, is_v6(ip)), {})
        lengths[length] = lengths.get(length, 0) + 1
        self._blocks.add((network, is_v6(ip), length, prefix(ip, length)), value)

    def discard(self, network: str, ip: Ip, length: int, value: V) -> None:
        family = network, is_v6(ip)
        lengths = self._lengths.get(family, {})
        if length not in lengths:
            return
        self._blocks.discard((*family, length, prefix(ip, length)), value)
        lengths[length] -= 1
        if not lengths[length]:
            del lengths[length]
        if not lengths:
            del self._lengths[family]

    def get(self, network: str, ip: Ip) -> tuple[tuple[int, V], ...]:
        """All values whose block holds `ip`, each with its block's length, longest first."""
        family = network, is_v6(ip)
        lengths = self._lengths.get(family)
        if not lengths:
            return ()
        return tuple(
            (length, value)
            for length in sorted(lengths, reverse=True)
            for value in self._blocks.get((*family, length, prefix(ip, length)))
        )

    def contents(self) -> tuple[object, object]:
        return self._blocks.contents(), {key: dict(lengths) for key, lengths in self._lengths.items()}


class Endpoints:
    """The pods behind a service, ready to be drawn from by weight. Immutable."""

    __slots__ = ("_bounds", "members")

    def __init__(self, members: Iterable[Workload] = ()) -> None:
        self.members = tuple(members)
        self._bounds = tuple(accumulate(each.capacity for each in self.members))

    def draw(self, chance: float) -> Workload | None:
        """One member with a probability in proportion to its capacity; `chance` is in [0, 1). None if all weigh 0."""
        total = self._bounds[-1] if self._bounds else 0
        return self.members[bisect(self._bounds, int(chance * total))] if total else None

    def __len__(self) -> int:
        return len(self.members)
