"""What waypoints are told, as a change: mesh.model.routing and mesh.model.http_policy, and who gets it."""

from __future__ import annotations

from dataclasses import dataclass

from mesh.wire.routing import Routing


@dataclass(frozen=True, slots=True)
class Published:
    """`waypoints` ("namespace/name") are those that get it."""

    value: Routing
    waypoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoutingUpdate:
    """Upserts, and keys of what is gone, applied together. With `replace`, what is not named here is gone."""

    changed: tuple[Published, ...] = ()
    removed: tuple[str, ...] = ()
    replace: bool = False


NO_ROUTING = RoutingUpdate()
