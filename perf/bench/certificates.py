"""Certificates for the proxies Ambit is compared with: of the kind that its own CA issues, from another CA."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controller.authority import issuer
from controller.authority.authority import Authority
from mesh.identity.csr import request_certificate
from mesh.model.identity import SpiffeId

TRUST_DOMAIN = "cluster.local"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Files of PEM: certificate chain, private key, both in one (as HAProxy wants them), and the roots to trust."""

    chain: Path
    key: Path
    both: Path
    roots: Path


def issue(directory: Path, account: str) -> KeyPair:
    """P-256, for `spiffe://cluster.local/ns/plain/sa/ACCOUNT`."""
    now = datetime.now(UTC)
    authority = Authority(issuer.load_or_create(directory / "ca", TRUST_DOMAIN, now), TRUST_DOMAIN)
    return issue_from(authority, directory, SpiffeId(TRUST_DOMAIN, "plain", account), now)


def issue_from(authority: Authority, directory: Path, identity: SpiffeId, now: datetime) -> KeyPair:
    account, request = identity.service_account, request_certificate(identity)
    leaf, *intermediates, roots = authority.issue(request.csr.decode(), identity, None, now)
    chain, key = leaf + "".join(intermediates), request.private_key.decode()
    return KeyPair(
        chain=_written(directory / f"{account}-chain.pem", chain),
        key=_written(directory / f"{account}-key.pem", key),
        both=_written(directory / f"{account}.pem", chain + key),
        roots=_written(directory / f"{account}-roots.pem", roots),
    )


def _written(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(text)
    return path
