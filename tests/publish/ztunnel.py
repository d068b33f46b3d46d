"""A raw gRPC client that speaks as an Istio ztunnel does, and a controller's door to speak to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio

from controller.authority.authentication import PodIdentity
from controller.authority.authority import Authority
from controller.authority.issuer import load_or_create
from controller.authority.tokens import TokenAuthenticator, issue_node_token, issue_pod_token
from controller.publish.publisher import ConnectionStatus, Publisher
from controller.publish.server import Server, serve
from mesh.model.address import Ip, SocketAddress
from mesh.wire.generated.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE, MAX_MESSAGE_BYTES

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
CA = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
ON_NODE_1 = {("node-1", "shop", "web")}
WAYPOINT_POD = PodIdentity("shop", "gate", "gate-1", "uid-of-gate-1")
PATIENCE = 20.0  # seconds until a test that waits in vain fails


@dataclass
class Door:
    publisher: Publisher
    authority: Authority
    server: Server
    address: SocketAddress
    token_key: Path

    def token(self, node: str = "node-1") -> str:
        return issue_node_token(self.token_key, node, 60)

    def pod_token(self, pod: PodIdentity = WAYPOINT_POD) -> str:
        return issue_pod_token(self.token_key, pod, 60)

    async def status(self, wanted: int = 1) -> tuple[ConnectionStatus, ...]:
        """Once that many ztunnels are connected and nothing is under way."""
        async with asyncio.timeout(PATIENCE):
            while True:
                status = self.publisher.status()
                calm = not any(each.waiting for connection in status for each in connection.types.values())
                if len(status) == wanted and calm:
                    return status
                await asyncio.sleep(0.01)


@asynccontextmanager
async def door(state: Path, port: int = 0) -> AsyncIterator[Door]:
    authority = Authority(load_or_create(state / "ca", "cluster.local", datetime.now(UTC)), "cluster.local")
    publisher, key = Publisher(), state / "token-key.pem"
    server = serve(
        SocketAddress(Ip("127.0.0.1"), port),
        publisher,
        authority,
        TokenAuthenticator(key),
        lambda node, namespace, account: (node, namespace, account) in ON_NODE_1,
        lambda pod: "shop/gate" if pod == WAYPOINT_POD else None,
        ["ambit-controller"],
    )
    address = await server.start()
    try:
        yield Door(publisher, authority, server, address, key)
    finally:
        await server.stop()


def channel(to: Door, roots: str | None = None) -> grpc.aio.Channel:
    credentials = grpc.ssl_channel_credentials((roots or to.authority.roots).encode())
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(str(to.address), credentials, options=options)


class Ztunnel:
    """One stream. `node` goes with the first request of a type only, as Istio's does."""

    def __init__(self, over: grpc.aio.Channel, token: str | None) -> None:
        metadata = [("clusterid", "Kubernetes")]
        if token is not None:
            metadata.append(("authorization", f"Bearer {token}"))
        method = over.stream_stream(
            ADS,
            request_serializer=DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=DeltaDiscoveryResponse.FromString,
        )
        self.call = method(metadata=metadata)  # type: ignore[call-arg]

    async def send(self, request: DeltaDiscoveryRequest) -> None:
        await self.call.write(request)

    async def begin(self, **held: str) -> None:
        for type_url, versions in ((ADDRESS_TYPE, held), (AUTHORIZATION_TYPE, {})):
            request = DeltaDiscoveryRequest(type_url=type_url, initial_resource_versions=versions)
            request.node.id = "ztunnel~1.1.1.1~ztunnel-abc.ambit-system~ambit-system.svc.cluster.local"
            request.node.metadata.update({"NAME": "ztunnel-abc", "NODE_NAME": "node-1"})
            await self.send(request)

    async def receive(self) -> DeltaDiscoveryResponse:
        async with asyncio.timeout(PATIENCE):
            response = await self.call.read()
        assert isinstance(response, DeltaDiscoveryResponse), "the stream has ended"
        return response

    async def acknowledge(self, response: DeltaDiscoveryResponse, error: str = "") -> None:
        request = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        if error:
            request.error_detail.message = error
        await self.send(request)

    async def take(self, count: int = 1) -> dict[str, DeltaDiscoveryResponse]:
        """The next responses, by type, acknowledged."""
        taken = {}
        for _ in range(count):
            response = await self.receive()
            taken[response.type_url] = response
            await self.acknowledge(response)
        return taken


async def ask_certificate(
    over: grpc.aio.Channel, token: str | None, csr: str, identity: str | None, seconds: int = 86400
) -> IstioCertificateResponse:
    method = over.unary_unary(
        CA,
        request_serializer=IstioCertificateRequest.SerializeToString,
        response_deserializer=IstioCertificateResponse.FromString,
    )
    request = IstioCertificateRequest(csr=csr, validity_duration=seconds)
    if identity is not None:
        request.metadata.update({"ImpersonatedIdentity": identity})
    metadata = [("clusterid", "Kubernetes")]
    if token is not None:
        metadata.append(("authorization", f"Bearer {token}"))
    response = await method(request, metadata=metadata, timeout=PATIENCE)
    assert isinstance(response, IstioCertificateResponse)
    return response
