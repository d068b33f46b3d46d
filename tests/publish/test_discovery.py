"""The discovery service over real gRPC and TLS, as an Istio ztunnel uses it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from controller.publish.publisher import Client
from controller.publish.server import ListenError
from mesh.model.policy import Action, Authorization, Clause, Match, PolicyScope, Rule
from mesh.model.update import MeshUpdate
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE
from mesh.xds.client import ClientSession, ztunnel_node
from mesh.xds.resources import address_resource
from tests.publish.ztunnel import PATIENCE, Ztunnel, channel, door
from tests.xds.values import WEB, deny, names, service, workload

POD = workload("web-1")
MESH = MeshUpdate(workloads=(POD,), services=(service(),), policies=(deny(),))


def test_a_ztunnel_gets_the_mesh_then_differences(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH)
            ztunnel = Ztunnel(over, to.token())
            await ztunnel.begin()
            first = await ztunnel.take(2)
            assert names(first[ADDRESS_TYPE]) == {POD.uid, WEB}
            assert names(first[AUTHORIZATION_TYPE]) == {"shop/strict"}
            to.publisher.update(MeshUpdate(workloads=(workload("web-2", "10.0.0.2"), POD)))
            second = await ztunnel.take()
            assert names(second[ADDRESS_TYPE]) == {workload("web-2").uid}
            to.publisher.update(MeshUpdate(removed_workloads=(POD.uid,), removed_policies=(deny().key,)))
            third = await ztunnel.take(2)
            assert list(third[ADDRESS_TYPE].removed_resources) == [POD.uid]
            assert list(third[AUTHORIZATION_TYPE].removed_resources) == ["shop/strict"]

    asyncio.run(scenario())


def test_nothing_is_said_before_the_mesh_is_known(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            ztunnel = Ztunnel(over, to.token())
            await ztunnel.begin(**{POD.uid: address_resource(POD).version})
            await to.status()
            reading = asyncio.create_task(ztunnel.receive())
            to.publisher.update(MESH)
            response = await reading
            if response.type_url == AUTHORIZATION_TYPE:
                response = await ztunnel.receive()
            assert names(response) == {WEB}, "the pod is held already, and was not taken for gone"
            assert not response.removed_resources

    asyncio.run(scenario())


def test_our_own_client_and_a_restarted_controller(tmp_path: Path) -> None:
    """The versions are of the content: a new controller resends nothing and removes what is gone."""

    async def converse(client: ClientSession, mesh: MeshUpdate) -> list[MeshUpdate]:
        updates = []
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(mesh)
            ztunnel = Ztunnel(over, to.token())
            for request in client.connect():
                await ztunnel.send(request)
            for _ in range(2):
                received = client.received(await ztunnel.receive())
                updates.append(received.update)
                await ztunnel.send(received.reply)
            (status,) = await to.status()
            assert {each.acknowledged for each in status.types.values()} == {to.publisher.version}
        return updates

    client = ClientSession(ztunnel_node("node-1", "ztunnel-abc", "ambit-system", "10.1.0.1"))
    first = asyncio.run(converse(client, MESH))
    assert {item for update in first for item in (*update.workloads, *update.services)} == {POD, service()}
    assert client.ready
    second = asyncio.run(converse(client, MeshUpdate(workloads=(POD,), policies=(deny(),))))
    assert [update for update in second if update != MeshUpdate()] == [
        MeshUpdate(removed_workloads=(WEB,), removed_services=(WEB,))  # type: ignore[arg-type]
    ]


def test_a_replacing_update_removes_the_rest(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH)
            ztunnel = Ztunnel(over, to.token())
            await ztunnel.begin()
            await ztunnel.take(2)
            to.publisher.update(MeshUpdate(services=(service(),), replace=True))
            changes = await ztunnel.take(2)
            assert list(changes[ADDRESS_TYPE].removed_resources) == [POD.uid]
            assert list(changes[AUTHORIZATION_TYPE].removed_resources) == ["shop/strict"]

    asyncio.run(scenario())


def test_on_demand(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH)
            ztunnel = Ztunnel(over, to.token())
            await ztunnel.send(
                DeltaDiscoveryRequest(
                    type_url=ADDRESS_TYPE, resource_names_subscribe=["*"], resource_names_unsubscribe=["*"]
                )
            )
            assert names((await ztunnel.take())[ADDRESS_TYPE]) == set()
            ask = DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, resource_names_subscribe=["/10.0.0.1", "/10.6.6.6"])
            await ztunnel.send(ask)
            answer = (await ztunnel.take())[ADDRESS_TYPE]
            assert names(answer) == {POD.uid}
            assert list(answer.removed_resources) == ["/10.6.6.6"]

    asyncio.run(scenario())


def test_status_tells_who_has_what_and_who_refuses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH)
            ztunnel = Ztunnel(over, to.token())
            await ztunnel.begin()
            for _ in range(2):
                response = await ztunnel.receive()
                refused = "web-1: node: too far away" if response.type_url == ADDRESS_TYPE else ""
                await ztunnel.acknowledge(response, refused)
            (status,) = await to.status()
            assert status.client == Client("", "node-1")
            assert status.peer.startswith("ipv4:127.0.0.1:")
            assert status.types[ADDRESS_TYPE].rejection == "web-1: node: too far away"
            assert status.types[ADDRESS_TYPE].acknowledged == ""
            assert status.types[AUTHORIZATION_TYPE].acknowledged == to.publisher.version
            ztunnel.call.cancel()
            assert await to.status(wanted=0) == ()

    asyncio.run(scenario())


def test_a_ztunnel_that_never_acknowledges_costs_one_response(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH)
            ztunnel = Ztunnel(over, to.token())
            await ztunnel.begin()
            held = [await ztunnel.receive(), await ztunnel.receive()]
            for last in range(200):
                to.publisher.update(MeshUpdate(workloads=(workload("web-1", f"10.0.1.{last}"),)))
                await asyncio.sleep(0)
            for response in held:
                await ztunnel.acknowledge(response)
            (caught_up,) = (await ztunnel.take()).values()
            assert [each.version for each in caught_up.resources] == [
                address_resource(workload("web-1", "10.0.1.199")).version
            ]

    asyncio.run(scenario())


@pytest.mark.parametrize("token", [None, "", "junk", "a.b.c"])
def test_without_a_good_token_nothing_is_told(tmp_path: Path, token: str | None) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            to.publisher.update(MESH)
            ztunnel = Ztunnel(over, token)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await asyncio.wait_for(ztunnel.call.read(), PATIENCE)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "token" in (raised.value.details() or "")
            assert to.publisher.status() == ()

    asyncio.run(scenario())


def test_a_client_that_trusts_another_ca_does_not_connect(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            door(tmp_path / "one") as to,
            door(tmp_path / "two") as other,
            channel(to, roots=other.authority.roots) as over,
        ):
            ztunnel = Ztunnel(over, to.token())
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await asyncio.wait_for(ztunnel.call.read(), PATIENCE)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

    asyncio.run(scenario())


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to:
            with pytest.raises(
                ListenError, match=f"cannot listen on 127.0.0.1:{to.address.port}: the address is in use"
            ):
                async with door(tmp_path, to.address.port):
                    pass

    asyncio.run(scenario())


def test_stopping_ends_the_streams(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            ztunnel = Ztunnel(over, to.token())
            await ztunnel.begin()
            await to.status()
            await asyncio.wait_for(to.server.stop(), PATIENCE)
            assert to.publisher.status() == ()
            assert await ztunnel.call.code() in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)

    asyncio.run(scenario())


def test_what_cannot_be_encoded_disturbs_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with door(tmp_path) as to, channel(to) as over:
            spoilt = workload("spoilt", "10.0.0.3", "node \ud800")
            rule = Rule((Clause((Match(destination_ports=(1 << 40,)),)),))
            policy = Authorization("strict", "shop", PolicyScope.NAMESPACE, Action.DENY, (rule,))
            to.publisher.update(MeshUpdate(workloads=(spoilt, POD), policies=(policy,)))
            client = ClientSession(ztunnel_node("node-1", "ztunnel-abc", "ambit-system", "10.1.0.1"))
            ztunnel = Ztunnel(over, to.token())
            await ztunnel.begin()
            updates = [client.received(response).update for response in (await ztunnel.take(2)).values()]
            assert [pod for update in updates for pod in update.workloads] == [POD]
            assert [each for update in updates for each in update.policies] == [deny()]

    asyncio.run(scenario())
