"""Who is calling: the bearer token in a call's metadata, and whoever can tell what it proves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from controller.authority.errors import Unauthenticated

_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The ztunnel of a node."""

    node: str


class Authenticator(Protocol):
    """Tokens of our own in local mode; the Kubernetes TokenReview in a cluster, hence async."""

    async def authenticate(self, token: str) -> NodeIdentity:
        """Raises Unauthenticated."""


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The token of `authorization: Bearer TOKEN`. Raises Unauthenticated."""
    for key, value in metadata:
        if key.lower() == "authorization" and isinstance(value, str) and value.lower().startswith(_SCHEME):
            return value[len(_SCHEME) :].strip()
    raise Unauthenticated("no bearer token in the authorization metadata")
