"""What a waypoint is told and certified, over real gRPC and TLS: what concerns itself, and nothing else."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controller.compile.published import Published, RoutingUpdate
from controller.publish.publisher import Client
from mesh.identity.certificates import parse_leaf
from mesh.identity.csr import request_certificate
from mesh.model.http_policy import HttpPolicy
from mesh.model.identity import SpiffeId
from mesh.model.routing import Gateway, PortRouting, ServiceRouting
from mesh.model.update import MeshUpdate
from mesh.model.workload import PolicyKey, ServiceKey
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.routing import decode_routing
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE, ROUTING_TYPE
from tests.publish.ztunnel import PATIENCE, WAYPOINT_POD, Ztunnel, ask_certificate, channel, door
from tests.xds.values import WEB, deny, names, service, workload

OWN, OTHER = "shop/gate", "bank/gate"
MESH = MeshUpdate(workloads=(workload("web-1"),), services=(service(),), policies=(deny(),), replace=True)


def published(waypoint: str = OWN, port: int = 80) -> tuple[Published, ...]:
    routing = ServiceRouting(waypoint, ServiceKey(WEB), (PortRouting(port),), (PolicyKey("shop/deny"),))
    return Published(Gateway(waypoint), (waypoint,)), Published(routing, (waypoint,))


POLICY = HttpPolicy("shop", "deny")
ROUTING = RoutingUpdate((*published(OWN), *published(OTHER), Published(POLICY, (OWN, OTHER))), replace=True)
KEYS = {Gateway(OWN).key, f"service//{OWN}//{WEB}", POLICY.key}


async def subscribe(waypoint: Ztunnel, *asked: str, type_url: str = ROUTING_TYPE) -> None:
    await waypoint.send(DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=asked))


@pytest.mark.parametrize("asked", [("waypoint//shop/gate",), ("*",), (), ("waypoint//bank/gate", Gateway(OTHER).key)])
def test_it_gets_its_own_group_whatever_it_asks_for(tmp_path: Path, asked: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH, ROUTING)
            waypoint = Ztunnel(over, to.pod_token())
            await subscribe(waypoint, *asked)
            first = (await waypoint.take())[ROUTING_TYPE]
            assert names(first) == KEYS
            assert not first.removed_resources
            values = [decode_routing(each.name, each.resource.value) for each in first.resources]
            assert sorted(value.key for value in values) == sorted(KEYS)
            (status,) = await to.status()
            assert status.client == Client(OWN, "gate-1")

    asyncio.run(scenario())


def test_it_gets_differences_and_what_leaves_its_group_is_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH, ROUTING)
            waypoint = Ztunnel(over, to.pod_token())
            await subscribe(waypoint, "waypoint//shop/gate")
            await waypoint.take()
            to.publisher.update(MeshUpdate(), RoutingUpdate(published(OTHER, 81)))  # nothing to it
            to.publisher.update(MeshUpdate(), RoutingUpdate(published(OWN, 81)))
            assert names((await waypoint.take())[ROUTING_TYPE]) == {f"service//{OWN}//{WEB}"}
            to.publisher.update(MeshUpdate(), RoutingUpdate((Published(POLICY, (OTHER,)),)))
            assert list((await waypoint.take())[ROUTING_TYPE].removed_resources) == [POLICY.key]
            to.publisher.update(MESH, RoutingUpdate(published(OTHER), replace=True))
            gone = (await waypoint.take())[ROUTING_TYPE]
            assert set(gone.removed_resources) == KEYS - {POLICY.key}
            assert not gone.resources

    asyncio.run(scenario())


def test_it_gets_the_mesh_and_a_ztunnel_gets_no_routes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH, ROUTING)
            waypoint, ztunnel = Ztunnel(over, to.pod_token()), Ztunnel(over, to.token())
            for each in (waypoint, ztunnel):
                for type_url in (ROUTING_TYPE, AUTHORIZATION_TYPE, ADDRESS_TYPE):
                    await subscribe(each, "*", type_url=type_url)
            told = await waypoint.take(2)
            assert set(told) == {ROUTING_TYPE, ADDRESS_TYPE}
            assert names(told[ADDRESS_TYPE]) == {workload("web-1").uid, WEB}
            assert set(await ztunnel.take(2)) == {AUTHORIZATION_TYPE, ADDRESS_TYPE}

    asyncio.run(scenario())


def test_a_waypoint_that_comes_back_gets_only_what_it_has_not(tmp_path: Path) -> None:
    async def scenario() -> DeltaDiscoveryResponse:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH, ROUTING)
            waypoint = Ztunnel(over, to.pod_token())
            await subscribe(waypoint, "waypoint//shop/gate")
            held = {each.name: each.version for each in (await waypoint.take())[ROUTING_TYPE].resources}
            del held[POLICY.key]
            again = Ztunnel(over, to.pod_token())
            request = DeltaDiscoveryRequest(
                type_url=ROUTING_TYPE, initial_resource_versions=held | {"policy//x/y": "1"}
            )
            await again.send(request)
            return (await again.take())[ROUTING_TYPE]

    response = asyncio.run(scenario())
    assert names(response) == {POLICY.key}
    assert list(response.removed_resources) == ["policy//x/y"]


def test_a_pod_that_is_no_waypoints_is_told_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH, ROUTING)
            stranger = Ztunnel(over, to.pod_token(replace(WAYPOINT_POD, pod="web-1")))
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await asyncio.wait_for(stranger.call.read(), PATIENCE)
            assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "pod shop/web-1 is not known as a waypoint's" in (raised.value.details() or "")

    asyncio.run(scenario())


GATE = SpiffeId("cluster.local", "shop", "gate")
VAULT = SpiffeId("cluster.local", "shop", "vault")


@pytest.mark.parametrize("named", [None, str(GATE)])
def test_it_gets_a_certificate_for_its_own_account(tmp_path: Path, named: str | None) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            csr = request_certificate(GATE).csr.decode()
            leaf, *_ = (await ask_certificate(over, to.pod_token(), csr, named)).cert_chain
            assert parse_leaf(leaf).identity == GATE

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("pod", "identity", "named", "code"),
    [
        (WAYPOINT_POD, VAULT, str(VAULT), "PERMISSION_DENIED"),
        (WAYPOINT_POD, VAULT, None, "INVALID_ARGUMENT"),
        (replace(WAYPOINT_POD, uid="another"), GATE, None, "PERMISSION_DENIED"),
        (replace(WAYPOINT_POD, service_account="vault"), VAULT, None, "PERMISSION_DENIED"),
    ],
)
def test_it_gets_none_for_anybody_else(
    tmp_path: Path, pod: object, identity: SpiffeId, named: str | None, code: str
) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            csr = request_certificate(identity).csr.decode()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await ask_certificate(over, to.pod_token(pod), csr, named)  # type: ignore[arg-type]
            assert raised.value.code() is grpc.StatusCode[code]

    asyncio.run(scenario())
