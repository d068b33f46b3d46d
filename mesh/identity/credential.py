"""A certificate with its key, as the CA issued it, and when it has to be renewed. Pure: the time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mesh.identity import certificates
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


def issued_credential(identity: SpiffeId, private_key: bytes, chain: Sequence[str]) -> Credential:
    """From the CA's answer: leaf, intermediates, and last the roots. Raises ValueError when it does not fit."""
    if len(chain) < 2:
        raise ValueError(f"the CA sent {len(chain)} certificates; a leaf and its roots were expected")
    # One element may hold several certificates; the leaf is the first of all.
    *issued, roots = (part.strip() + "\n" for part in chain)
    pem = "".join(issued).encode()
    try:
        leaf = certificates.parse_leaf(pem)
        certificates.load_chain(roots)
        fits = certificates.key_fits(pem, private_key)
    except ValueError as error:
        raise ValueError(f"the CA sent a certificate that cannot be read: {error}") from error
    if leaf.identities != (identity,):
        names = ", ".join(map(str, leaf.identities)) or "nobody"
        raise ValueError(f"the CA sent a certificate for {names} instead of {identity}")
    if not fits:
        raise ValueError("the CA sent a certificate for another key")
    return Credential(identity, pem, private_key, roots.encode(), leaf.not_before, leaf.not_after)
