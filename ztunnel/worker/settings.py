"""What can be set by the environment. Names that Istio's ztunnel has keep its name, meaning and default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}


@dataclass(frozen=True, slots=True)
class Settings:
    """Seconds and counts."""

    connect_timeout: float = 10.0
    """TCP connect to an app, a peer or a passed-through destination: as Istio's. A dead host is known after 3 SYNs."""
    handshake_timeout: float = 10.0
    """TLS, both sides, from accept or connect on: a handshake takes milliseconds; who needs longer holds memory."""
    preface_timeout: float = 10.0
    """From TLS to the peer's HTTP/2 preface and SETTINGS, which need no decision of anybody."""
    response_timeout: float = 20.0
    """From CONNECT to its response. Longer than `connect_timeout`: the peer may be dialling an app that is dead."""
    workload_timeout: float = 5.0
    """How long a connection of a new pod waits until the mesh knows the pod and its certificate: as Istio's."""
    waypoint_timeout: float = 10.0
    """How long a connection waits for a waypoint that has no pod that is ready: one that is restarted is back in
    seconds, and nothing of the app's was sent to the one before. Not longer than a connect() to a host that is down."""
    ping_interval: float = 10.0
    ping_timeout: float = 20.0
    """A peer that says nothing for so long after a PING is gone: as Istio's."""
    pool_streams: int = 100
    """Streams of one tunnel, if the peer allows as many: as Istio's."""
    tunnel_streams: int = 200
    """Streams that a peer may have open on one of its tunnels to us: as Istio's."""
    pool_idle: float = 300.0
    """How long a tunnel without streams is kept for the next connection: as Istio's."""
    handshakes: int = 1024
    """TLS handshakes under way at once in one pod. Beyond it the oldest is cut, so slow ones cannot shut others out."""
    pool_waiting: int = 4096
    """Connections that wait for the dial of one tunnel. Beyond it they are refused."""
    peer_dials: int = 16
    """Tunnels to one peer that are dialled at once, for all pods together. A handshake costs the peer about a
    millisecond of its CPU: so many keep it busy, and never have more than that wait in front of others."""
    inbound_tunnels: int = 16_384
    """Tunnels that peers hold to this worker, handshakes included. Beyond it new ones are refused."""
    peer_tunnels: int = 256
    """Of them from one address. An honest peer opens one for every hundred connections."""
    inbound_idle: float = 600.0
    """How long a peer may hold a tunnel without streams: twice as long as peers of our kind do."""
    drain_deadline: float = 5.0
    """How long connections may live after SIGTERM, when the agent has not said otherwise."""
    network: str = ""
    cluster_domain: str = "cluster.local"
    preferred_namespace: str = ""
    response_baggage: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Raises ValueError that names the variable."""
        read = _Reader(environment)
        default = cls()
        return cls(
            connect_timeout=read.seconds("AMBIT_CONNECT_TIMEOUT", default.connect_timeout),
            handshake_timeout=read.seconds("AMBIT_HANDSHAKE_TIMEOUT", default.handshake_timeout),
            preface_timeout=read.seconds("AMBIT_PREFACE_TIMEOUT", default.preface_timeout),
            response_timeout=read.seconds("AMBIT_RESPONSE_TIMEOUT", default.response_timeout),
            workload_timeout=read.seconds("AMBIT_WORKLOAD_TIMEOUT", default.workload_timeout),
            waypoint_timeout=read.seconds("AMBIT_WAYPOINT_TIMEOUT", default.waypoint_timeout),
            ping_interval=read.seconds("AMBIT_PING_INTERVAL", default.ping_interval),
            ping_timeout=read.seconds("AMBIT_PING_TIMEOUT", default.ping_timeout),
            pool_streams=read.number("POOL_MAX_STREAMS_PER_CONNECTION", default.pool_streams),
            tunnel_streams=read.number("AMBIT_MAX_STREAMS_PER_TUNNEL", default.tunnel_streams),
            pool_idle=read.seconds("POOL_UNUSED_RELEASE_TIMEOUT", default.pool_idle),
            handshakes=read.number("AMBIT_MAX_HANDSHAKES", default.handshakes),
            pool_waiting=read.number("AMBIT_MAX_WAITING", default.pool_waiting),
            peer_dials=read.number("AMBIT_MAX_DIALS_PER_PEER", default.peer_dials),
            inbound_tunnels=read.number("AMBIT_MAX_INBOUND_TUNNELS", default.inbound_tunnels),
            peer_tunnels=read.number("AMBIT_MAX_TUNNELS_PER_PEER", default.peer_tunnels),
            inbound_idle=read.seconds("AMBIT_INBOUND_IDLE", default.inbound_idle),
            drain_deadline=_drain_deadline(read, default.drain_deadline),
            network=environment.get("NETWORK", ""),
            cluster_domain=environment.get("CLUSTER_DOMAIN", default.cluster_domain),
            preferred_namespace=environment.get("PREFERED_SERVICE_NAMESPACE", ""),  # Istio's spelling
            response_baggage=environment.get("ENABLE_RESPONSE_BAGGAGE", "true").lower() != "false",
        )


@dataclass(frozen=True, slots=True)
class _Reader:
    environment: Mapping[str, str]

    def seconds(self, name: str, default: float) -> float:
        """ "250ms", "10s", "5m", "1h" or plain seconds."""
        text = self.environment.get(name, "").strip()
        if not text:
            return default
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)", text)
        if found is None or float(found[1]) <= 0:
            raise ValueError(f"environment variable {name}={text!r} is not a duration such as 250ms, 10s or 5m")
        return float(found[1]) * _UNITS[found[2]]

    def number(self, name: str, default: int) -> int:
        text = self.environment.get(name, "").strip()
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise ValueError(f"environment variable {name}={text!r} is not a positive number")
        return int(text)


def _drain_deadline(read: _Reader, default: float) -> float:
    """Istio's rule: the explicit one, else the grace period less what it takes to exit, else the default."""
    if "CONNECTION_TERMINATION_DEADLINE" in read.environment:
        return read.seconds("CONNECTION_TERMINATION_DEADLINE", default)
    if "TERMINATION_GRACE_PERIOD_SECONDS" not in read.environment:
        return default
    grace = read.seconds("TERMINATION_GRACE_PERIOD_SECONDS", default)
    return max(1.0, grace - (5.0 if grace > 10.0 else 1.0))
