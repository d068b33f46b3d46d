"""What waypoints consist of, made in a store: created, mended, deleted with their Gateway, nobody else's touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from controller.compile.options import MeshOptions
from controller.compile.waypoint_objects import Runtime
from controller.deploying import Deployer
from controller.follow import Follower
from controller.store import kinds
from controller.store.directory import DirectoryStore
from controller.store.interface import Key, Kind, NotFound
from tests.compile.gateway_objects import gateway
from tests.compile.objects import namespace, service

RUNTIME = Runtime("ambit/waypoint:1", ("python", "-m", "waypoint"), "controller:15012", "-----BEGIN", "/mnt")
MADE = (kinds.SERVICE_ACCOUNT, kinds.SERVICE, kinds.DEPLOYMENT)


@asynccontextmanager
async def deploying(store: DirectoryStore, runtime: Runtime = RUNTIME) -> AsyncIterator[None]:
    deployer = Deployer(store, runtime, MeshOptions(), collects=True)
    follower = Follower(
        store, MeshOptions(), lambda *_: None, lambda compiler, changes: deployer.look(compiler, changes.examined)
    )
    tasks = [asyncio.create_task(follower.run()), asyncio.create_task(deployer.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


async def found(store: DirectoryStore, kind: Kind, name: str = "gate") -> Any:
    try:
        return await store.get(kind, name, "shop")
    except NotFound:
        return None


async def until(store: DirectoryStore, there: bool, *wanted: Kind) -> list[Any]:
    async with asyncio.timeout(20):
        while True:
            objects = [await found(store, kind) for kind in wanted]
            if all((each is not None) == there for each in objects):
                return objects
            await asyncio.sleep(0.02)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path)


def test_a_waypoint_comes_and_goes_with_its_gateway(store: DirectoryStore) -> None:
    async def scenario() -> None:
        await store.apply(namespace())
        await store.apply(gateway())
        async with deploying(store):
            _, address, deployment = await until(store, True, *MADE)
            template = deployment["spec"]["template"]
            label = {"gateway.networking.k8s.io/gateway-name": "gate"}
            assert label.items() <= template["metadata"]["labels"].items()
            assert address["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == label
            assert 15008 in [port["port"] for port in address["spec"]["ports"]]
            (container,) = template["spec"]["containers"]
            environment = {each["name"]: each.get("value") for each in container["env"]}
            assert environment["GATEWAY_NAME"] == "gate"
            assert environment["XDS_ADDRESS"] == "https://controller:15012"
            assert template["spec"]["serviceAccountName"] == "gate"
            await store.delete(Key("Gateway", "shop", "gate"))
            await until(store, False, *MADE)

    asyncio.run(scenario())


def test_what_belongs_to_somebody_else_stays_as_it_is(store: DirectoryStore) -> None:
    async def scenario() -> None:
        await store.apply(namespace())
        theirs = await store.apply(service("gate", ports=[{"port": 1}]))
        await store.apply(gateway())
        async with deploying(store):
            await until(store, True, kinds.DEPLOYMENT)
            await store.delete(Key("Gateway", "shop", "gate"))
            await until(store, False, kinds.DEPLOYMENT)
            assert await found(store, kinds.SERVICE) == theirs

    asyncio.run(scenario())


@pytest.mark.parametrize("other", [{"class_name": "istio"}, {"listeners": []}])
def test_a_gateway_that_is_no_waypoint_of_ours_gets_nothing(store: DirectoryStore, other: Any) -> None:
    async def scenario() -> None:
        await store.apply(namespace())
        await store.apply(gateway("a-stranger", **other))
        await store.apply(gateway())
        async with deploying(store):
            await until(store, True, kinds.DEPLOYMENT)
            assert await found(store, kinds.SERVICE, "a-stranger") is None

    asyncio.run(scenario())


def test_an_account_that_the_gateway_names_is_not_made(store: DirectoryStore) -> None:
    async def scenario() -> None:
        await store.apply(namespace())
        obj = gateway()
        obj["metadata"]["annotations"] = {"gateway.istio.io/service-account": "robot"}
        await store.apply(obj)
        async with deploying(store):
            (deployment,) = await until(store, True, kinds.DEPLOYMENT)
            assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == "robot"
            assert await found(store, kinds.SERVICE_ACCOUNT) is None

    asyncio.run(scenario())
