"""A certificate with its key, and when it has to be renewed. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field

from mesh.model.identity import SpiffeId


@dataclass(frozen=True, slots=True)
class Credential:
    """All PEM; `chain` is leaf first. Times are seconds since the epoch. The key is not shown by repr()."""

    identity: SpiffeId
    chain: bytes
    private_key: bytes = field(repr=False)
    roots: bytes
    not_before: float
    not_after: float

    def valid(self, now: float) -> bool:
        return now < self.not_after

    def renew_at(self, received: float) -> float:
        """Half way through what is left of it. Counted from the receipt when its start was dated back, so that a short
        certificate is not renewed at once, again and again."""
        return (
            self.not_before + (self.not_after - self.not_before) / 2
            if received <= self.not_before
            else (received + (self.not_after - received) / 2)
        )
