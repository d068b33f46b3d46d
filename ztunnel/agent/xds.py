"""The stream of mesh state from the control plane: delta xDS over gRPC, taken up again for ever.

What it means is decided in mesh.xds.client; here are the connection, the token and the waiting.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable
from typing import Any

import grpc.aio

from mesh.model.update import MeshUpdate
from mesh.runtime.backoff import Backoff
from mesh.runtime.control_plane import Control, ControlError, metadata
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import DELTA_PATH
from mesh.xds.client import ClientSession, ztunnel_node
from ztunnel.agent import control
from ztunnel.agent.config import Node
from ztunnel.agent.metrics import Metrics

# Seconds. Istio's cap is 15; a controller that is back should be heard soon, and jitter spreads the clients.
BACKOFF_START, BACKOFF_CAP = 0.1, 5.0

log = logging.getLogger("xds")


class XdsClient:
    """`received` gets each change, and whether all types of resources have been told of by now."""

    def __init__(
        self, settings: Control, node: Node, received: Callable[[MeshUpdate, bool], None], metrics: Metrics
    ) -> None:
        self._settings = settings
        self._node = node
        self._received = received
        self._metrics = metrics
        self._session = ClientSession(describe(node))

    def resume(self, held: MeshUpdate) -> None:
        """Before `run`: what is known already, so that the server only sends what differs."""
        self._session = ClientSession(describe(self._node), held)

    @property
    def refused(self) -> int:
        """Resources that could not be taken in."""
        return len(self._session.rejected)

    async def run(self) -> None:
        if not self._settings.address:
            log.warning("XDS_ADDRESS is empty: the mesh is what the disk says")
            return
        backoff = Backoff(BACKOFF_START, BACKOFF_CAP)
        reported = ""
        while True:
            reason, text = await self._stream(backoff)
            self._metrics.xds_terminations.labels(reason=reason).inc()
            if text != reported:
                log.warning("control plane at %s: %s", self._settings.address, text)
            reported = text
            await asyncio.sleep(backoff.after_failure(random.random()))

    async def _stream(self, backoff: Backoff) -> tuple[str, str]:
        """One stream, until its end: Istio's name for how it ended, and why."""
        try:
            async with control.open_channel(self._settings) as channel:
                await self._converse(channel, backoff)
            return "Complete", "the server ended the stream"
        except ControlError as error:
            return "ConnectionError", str(error)
        except grpc.aio.AioRpcError as error:
            unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
            return ("ConnectionError" if unavailable else "Error"), control.describe(error)
        except Exception as error:  # a fault of ours in one response must not leave the node without updates
            log.exception("control plane at %s", self._settings.address)
            return "Error", f"internal error {type(error).__name__}"

    async def _converse(self, channel: grpc.aio.Channel, backoff: Backoff) -> None:
        method = channel.stream_stream(
            DELTA_PATH,
            request_serializer=DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=DeltaDiscoveryResponse.FromString,
        )
        call = method(None, metadata=metadata(self._settings, self._node.cluster_id))
        for request in self._session.connect():
            await call.write(request)
        async for response in call:
            backoff.succeeded()
            await call.write(self._take(response))

    def _take(self, response: DeltaDiscoveryResponse) -> DeltaDiscoveryRequest:
        """The answer to a response, whose change is made."""
        self._metrics.xds_messages.labels(url=response.type_url).inc()
        self._metrics.xds_bytes.labels(url=response.type_url).inc(response.ByteSize())
        result = self._session.received(response)
        for rejected in result.rejected:
            log.error("refused from the control plane: %s", rejected)
        self._received(result.update, self._session.ready)
        return result.reply


def describe(node: Node) -> DeltaDiscoveryRequest.Node:
    """How this ztunnel presents itself, with what ISTIO_META_* adds."""
    message = ztunnel_node(node.name, node.pod_name, node.pod_namespace, node.instance_ip)
    message.metadata.update(dict(node.metadata))
    message.metadata.update({name: _json(text) for name, text in node.json_metadata.items()})
    return message


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
