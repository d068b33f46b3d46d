"""What an explanation consists of: values that can be printed as sentences and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from mesh.model.address import SocketAddress


class Verdict(StrEnum):
    ALLOWED = "allowed"
    DENIED = "denied"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Considered:
    """A policy, whether it matches, and the clause that decided."""

    policy: str
    action: str
    matches: bool
    because: str


@dataclass(frozen=True, slots=True)
class Step:
    """What one part of the mesh does. `place` names the part, `topic` what it is about."""

    topic: str
    place: str
    text: str
    policies: tuple[Considered, ...] = ()


@dataclass(frozen=True, slots=True)
class Way:
    """One way that the connection may take. `share`: of the route's traffic, where it is divided by weights."""

    steps: tuple[Step, ...]
    verdict: Verdict
    reason: str
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """`assumed`: the user gave none."""

    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    assumed: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """The question, with what its words turned out to mean."""

    source: str  # namespace/pod
    destination: str  # as the user said it
    address: SocketAddress | None
    request: Request = Request()


@dataclass(frozen=True, slots=True)
class Explanation:
    """`common` holds whichever way is taken; `ways` are what chance chooses from: endpoints, backends."""

    asked: Asked
    common: tuple[Step, ...] = ()
    ways: tuple[Way, ...] = ()
    left_out: int = field(default=0)  # ways that were not looked at

    @property
    def verdict(self) -> Verdict:
        found = {way.verdict for way in self.ways}
        return found.pop() if len(found) == 1 and not (self.left_out and found == set()) else Verdict.UNKNOWN

    @property
    def reason(self) -> str:
        if not self.ways:
            return "there is no way to look at"
        reasons = list(dict.fromkeys(way.reason for way in self.ways))
        if len({way.verdict for way in self.ways}) > 1:
            return "it depends on which way is drawn: " + "; ".join(
                f"{way.verdict}: {way.reason}" for way in _distinct(self.ways)
            )
        return "; ".join(reasons)


def _distinct(ways: Iterable[Way]) -> list[Way]:
    return list({(way.verdict, way.reason): way for way in ways}.values())
