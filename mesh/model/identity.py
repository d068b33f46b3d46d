"""Who something is: a SPIFFE ID in the form that Istio gives it (SPIFFE-ID section 2; istio: spiffe/spiffe.go)."""

from __future__ import annotations

import re
from typing import NamedTuple

DEFAULT_TRUST_DOMAIN = "cluster.local"

# Exactly spiffe://<trust domain>/ns/<namespace>/sa/<service account>: no query, no trailing slash, no empty part.
_FORM = re.compile(r"spiffe://([a-z0-9._-]+)/ns/([a-z0-9.-]+)/sa/([A-Za-z0-9._-]+)")


class SpiffeId(NamedTuple):
    """The identity of a workload: its trust domain, namespace and service account. A tuple, because it is part of what
    tunnels, names and counts are looked up by, several times for each connection."""

    trust_domain: str
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @classmethod
    def parse(cls, uri: str) -> SpiffeId:
        """Raises ValueError when `uri` is not exactly of Istio's form."""
        found = _FORM.fullmatch(uri)
        if found is None:
            raise ValueError(f"not a SPIFFE ID of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT: {uri!r}")
        return cls(*found.groups())
