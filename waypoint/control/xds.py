"""The stream of configuration from the control plane, taken up again for ever."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from mesh.runtime.backoff import Backoff
from mesh.runtime.control_plane import Control, ControlError
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import ADDRESS_TYPE, DELTA_PATH, ROUTING_TYPE
from mesh.xds.client import ClientSession
from waypoint.control.grpc import Call, call
from waypoint.control.session import RoutingSession
from waypoint.plan.world import World

BACKOFF_START, BACKOFF_CAP = 0.1, 5.0  # seconds: a controller that is back should be heard soon

log = logging.getLogger("xds")


class XdsClient:
    """Applies each change to the world; `known` is called once, when all has been told of."""

    def __init__(
        self,
        control: Control,
        cluster: str,
        node: DeltaDiscoveryRequest.Node,
        world: World,
        known: Callable[[], None],
    ) -> None:
        self._control = control
        self._cluster = cluster
        self._world = world
        self._known = known
        # Policies of requests come with the routing; those of connections are the destination's to enforce.
        self._mesh = ClientSession(node, types=(ADDRESS_TYPE,))
        self._routing = RoutingSession(node, world.own.waypoint)
        self._backoff = Backoff(BACKOFF_START, BACKOFF_CAP)
        self._call: Call | None = None

    async def run(self) -> None:
        reported = ""
        while True:
            try:
                await self._stream()
                reason = "the server ended the stream"
            except ControlError as error:
                reason = str(error)
            except Exception as error:  # a fault of ours in one response must not leave the waypoint without updates
                log.exception("control plane at %s", self._control.address)
                reason = f"internal error {type(error).__name__}"
            if reason != reported:
                log.warning("control plane at %s: %s", self._control.address, reason)
            reported = reason
            await asyncio.sleep(self._backoff.after_failure(random.random()))

    async def _stream(self) -> None:
        opened = self._call = await call(self._control, DELTA_PATH, self._cluster, self._received)
        try:
            for request in (*self._mesh.connect(), self._routing.connect()):
                opened.send(request.SerializeToString())
            await opened.done
        finally:
            opened.close()

    def _received(self, message: bytes) -> None:
        assert self._call is not None
        self._backoff.succeeded()
        response = DeltaDiscoveryResponse.FromString(message)
        reply = self._take_routing(response) if response.type_url == ROUTING_TYPE else self._take_mesh(response)
        self._call.send(reply.SerializeToString())
        if not self._world.known and self._mesh.ready and self._routing.ready:
            self._world.known = True
            self._known()

    def _take_routing(self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest:
        result = self._routing.received(response)
        for rejected in result.rejected:
            log.error("refused from the control plane: %s", rejected)
        self._world.apply_routing(result.changed, result.removed)
        for problem in self._world.tables.problems():
            log.warning("%s", problem)
        return result.reply

    def _take_mesh(self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest:
        result = self._mesh.received(response)
        for rejected in result.rejected:
            log.error("refused from the control plane: %s", rejected)
        self._world.apply_mesh(result.update)
        return result.reply
