"""The data path put together: tunnels in, connections and requests, tunnels out. Fed with values, it asks nobody."""

from __future__ import annotations

import asyncio

from mesh.identity.tls import TlsIdentity
from waypoint.exchange.upstreams import Dialler, Upstreams
from waypoint.plan.world import Own, World
from waypoint.serve.arrivals import Arrivals, Observer
from waypoint.tunnel.pool import Pool
from waypoint.tunnel.server import Tunnels


class Core:
    """`identity` is the certificate of now; without one nobody is let in, and nothing is dialled."""

    def __init__(self, loop: asyncio.AbstractEventLoop, own: Own, trust_domain: str, observer: Observer) -> None:
        self.world = World(own)
        self._identity: TlsIdentity | None = None
        self.pool = Pool(loop, lambda: self._identity)
        self.upstreams = Upstreams(loop, Dialler(loop, self.pool))
        self.arrivals = Arrivals(loop, self.world, self.upstreams, observer)
        self.tunnels = Tunnels(loop, self._presented, trust_domain, self.arrivals.arrived)

    @property
    def identity(self) -> TlsIdentity | None:
        return self._identity

    @identity.setter
    def identity(self, identity: TlsIdentity | None) -> None:
        """Tunnels that stand go on with the certificate that they have; new ones use the new one."""
        self._identity = identity
        self.pool.retire_all()

    def _presented(self) -> TlsIdentity | None:
        """To clients, once there is something to serve them: before, another pod may."""
        return self._identity if self.world.known else None

    @property
    def busy(self) -> bool:
        """Whether anything is under way for a client."""
        return self.tunnels.streams > 0

    def drain(self) -> None:
        """Takes nothing new; what is under way may end."""
        self.tunnels.retire()
        self.arrivals.drain()

    def cut(self, reason: str) -> None:
        self.tunnels.cut(reason)
        self.pool.retire_all()
