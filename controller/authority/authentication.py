"""Who is calling: the bearer token in a call's metadata, and whoever can tell what it proves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from controller.authority.errors import Unauthenticated

_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The ztunnel of a node."""

    node: str

    def __str__(self) -> str:
        return f"node {self.node}"


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """A pod, and the service account that it runs as. Whether it is a waypoint's, its labels say."""

    namespace: str
    service_account: str
    pod: str
    uid: str

    def __str__(self) -> str:
        return f"pod {self.namespace}/{self.pod}"


Caller = NodeIdentity | PodIdentity

WaypointOf = Callable[[PodIdentity], str | None]
"""The waypoint ("namespace/name") that a pod belongs to now; None for any other pod."""


class Authenticator(Protocol):
    """Tokens of our own in local mode; the Kubernetes TokenReview in a cluster, hence async."""

    async def authenticate(self, token: str) -> Caller:
        """Raises Unauthenticated."""


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The token of `authorization: Bearer TOKEN`. Raises Unauthenticated."""
    for key, value in metadata:
        if key.lower() == "authorization" and isinstance(value, str) and value.lower().startswith(_SCHEME):
            return value[len(_SCHEME) :].strip()
    raise Unauthenticated("no bearer token in the authorization metadata")
