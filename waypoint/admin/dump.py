"""The admin server's view of everything, without keys."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from waypoint.control.certificate import CertificateKeeper
from waypoint.core import Core


def config_dump(core: Core, certificate: CertificateKeeper | None) -> bytes:
    world = core.world
    state = world.mesh.snapshot()
    shown: dict[str, Any] = {
        "waypoint": world.own.waypoint,
        "identity": str(world.own.identity),
        "known": world.known,
        "certificate": _certificate(certificate),
        "routing": {name: msgspec.to_builtins(value) for name, value in sorted(world.resources().items())},
        "problems": world.tables.problems(),
        "services": [
            {"key": service.key, "addresses": [str(one.ip) for one in service.addresses]} for service in state.services
        ],
        "workloads": [
            {
                "uid": one.uid,
                "addresses": list(one.addresses),
                "identity": str(one.identity),
                "tunnel": one.tunnel_protocol.name,
                "status": one.status.name,
            }
            for one in state.workloads
        ],
        "traffic": dict(gauges(core)),
    }
    return json.dumps(shown, indent=2).encode() + b"\n"


def gauges(core: Core) -> list[tuple[str, float]]:
    return [
        ("inbound_tunnels", core.tunnels.count),
        ("inbound_streams", core.tunnels.streams),
        ("inbound_tunnels_refused", core.tunnels.refused),
        ("outbound_tunnels", core.pool.tunnels),
        ("client_connections", core.arrivals.connections),
        ("upstream_connections", core.upstreams.connections),
    ]


def _certificate(keeper: CertificateKeeper | None) -> dict[str, Any]:
    if keeper is None or keeper.credential is None:
        return {"reason": keeper.reason if keeper else ""}
    return {"not_before": keeper.credential.not_before, "not_after": keeper.credential.not_after}
