"""The controller's own certificate: for the names and addresses by which ztunnels reach it, renewed at half life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address

from cryptography import x509

from controller.authority.authority import Authority
from controller.authority.keys import new_key, to_pem
from mesh.identity.certificates import renewal_time
from mesh.model.address import is_ip


@dataclass(frozen=True)
class ServingCertificate:
    """PEM; `renew_at` is in seconds since the epoch."""

    chain: bytes
    private_key: bytes
    renew_at: float


class ServingCertificates:
    """Lives in memory: a restart makes another."""

    def __init__(self, authority: Authority, names: Sequence[str]) -> None:
        """`names` are DNS names and IP addresses, at least one."""
        self._authority = authority
        self._names = [_general_name(name) for name in dict.fromkeys(names)]
        self._current: ServingCertificate | None = None

    def at(self, now: datetime) -> ServingCertificate:
        """The one to present now; the same object until it is renewed. Raises AuthorityError."""
        if self._current is None or now.timestamp() >= self._current.renew_at:
            self._current = self._make(now)
        return self._current

    def _make(self, now: datetime) -> ServingCertificate:
        key = new_key()
        leaf, chain = self._authority.issue_serving(key.public_key(), self._names, now)
        renew_at = renewal_time(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())
        return ServingCertificate(chain.encode(), to_pem(key), renew_at)


def _general_name(name: str) -> x509.GeneralName:
    return x509.IPAddress(ip_address(name)) if is_ip(name) else x509.DNSName(name)
