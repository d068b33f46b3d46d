"""The gRPC service that ztunnels and waypoints subscribe to: one task reads a stream, one writes it.

Bounded by itself: a request is dealt with before the next is read, and at most one response of each type is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
import grpc.aio

from controller.authority.authentication import Authenticator, Caller, NodeIdentity, WaypointOf, bearer_token
from controller.authority.errors import Unauthenticated, Undecided
from controller.publish.publisher import Client, Connection, Publisher, log
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import DELTA_METHOD, DISCOVERY_SERVICE
from mesh.xds.server import SessionRefused

Context: TypeAlias = "grpc.aio.ServicerContext[DeltaDiscoveryRequest, DeltaDiscoveryResponse]"


class DiscoveryService:
    """The gRPC side of a Publisher."""

    def __init__(self, publisher: Publisher, authenticator: Authenticator, waypoint_of: WaypointOf) -> None:
        self._publisher = publisher
        self._authenticator = authenticator
        self._waypoint_of = waypoint_of
        self._stopping = asyncio.Event()

    def handler(self) -> grpc.GenericRpcHandler[DeltaDiscoveryRequest, DeltaDiscoveryResponse]:
        method = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=DeltaDiscoveryRequest.FromString,
            response_serializer=DeltaDiscoveryResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(DISCOVERY_SERVICE, {DELTA_METHOD: method})

    def stop(self) -> None:
        """End all streams; their clients come back to whoever listens then."""
        self._stopping.set()

    async def _stream(self, requests: AsyncIterator[DeltaDiscoveryRequest], context: Context) -> None:
        client = await self._client(context)
        connection = self._publisher.connect(client, context.peer())
        log.info("%s connected from %s", client, context.peer())
        tasks = [
            asyncio.create_task(self._read(requests, connection)),
            asyncio.create_task(self._write(connection, context)),
            asyncio.create_task(self._stopping.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except SessionRefused as error:
            log.warning("%s refused: %s", client, error)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        finally:
            self._publisher.disconnect(connection)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            log.info("%s disconnected", client)

    async def _read(self, requests: AsyncIterator[DeltaDiscoveryRequest], connection: Connection) -> None:
        async for request in requests:
            connection.requested(request)

    async def _write(self, connection: Connection, context: Context) -> None:
        while True:
            await connection.bell.wait()
            connection.bell.clear()
            while (response := self._publisher.next_response(connection)) is not None:
                await context.write(response)

    async def _client(self, context: Context) -> Client:
        caller = await self._caller(context)
        if isinstance(caller, NodeIdentity):
            return Client("", caller.node)
        waypoint = self._waypoint_of(caller)
        if waypoint is None:
            log.warning("stream from %s refused: %s is no waypoint's", context.peer(), caller)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{caller} is not known as a waypoint's")
        return Client(waypoint or "", caller.pod)

    async def _caller(self, context: Context) -> Caller:
        try:
            return await self._authenticator.authenticate(bearer_token(context.invocation_metadata() or ()))
        except Undecided as error:
            log.error("stream from %s refused: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the token cannot be checked now")
            raise
        except Unauthenticated as error:
            log.warning("stream from %s refused: %s", context.peer(), error)
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
            raise  # never reached: abort() raises
