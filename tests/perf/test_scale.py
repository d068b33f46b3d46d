"""The controller with a hundred Services and a thousand pods: all of it arrives, and a change is one resource."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controller.compile.options import MeshOptions
from perf.scale import filling, objects
from perf.scale.changes import Change, changes, uid
from perf.scale.crowd import Crowd
from perf.scale.measure import connected
from perf.scale.objects import Size
from tests.controller.cluster import ClusterController, replicas
from tests.controller.process import Ztunnel
from tests.store import apiserver
from tests.store.system import System

SIZE = Size(services=100, pods=1000)
ZTUNNELS = 3
OF_THE_API_SERVER = "default/kubernetes.default.svc.cluster.local"


def everything() -> set[str]:
    domain = MeshOptions().cluster_domain
    names = {OF_THE_API_SERVER} | {uid(objects.place(SIZE, number)) for number in range(SIZE.pods)}
    for each in objects.services(SIZE):
        name, namespace = each["metadata"]["name"], each["metadata"]["namespace"]
        names.add(f"{namespace}/{name}.{namespace}.svc.{domain}")
    return names


async def whole_mesh(found: ClusterController) -> set[str]:
    """What a ztunnel that is new is told. Every pod is in its service, on its node, and reached by HBONE."""
    async with found.channel() as channel:
        ztunnel = Ztunnel(channel, found.node_token(objects.node_name(0)))
        await ztunnel.subscribe()
        await ztunnel.until(lambda mesh: len(mesh) >= SIZE.resources + 1)
        return set(ztunnel.mesh)


async def is_told_alone(found: ClusterController, listeners: Crowd, change: Change) -> None:
    listeners.forget()
    await found.system.api.call(change.write)
    await listeners.until_all([change.name], change.removes)
    told = {name for each in listeners.heard for name in (*each.names, *each.removed)}
    assert told == {change.name}
    assert len(listeners.heard) == ZTUNNELS or change.removes  # it may have been unready before it was gone


def test_all_of_a_large_mesh_arrives_and_a_change_is_one_resource(tmp_path: Path) -> None:
    if reason := apiserver.missing():
        pytest.skip(reason)

    async def scenario(system: System) -> None:
        async with replicas(system, tmp_path) as (found,):
            assert await whole_mesh(found) == everything()
            async with connected(found, ZTUNNELS) as (listeners, _):
                await listeners.until_full(SIZE.resources + 1)
                for series in changes(system.api, SIZE, 6).values():
                    for change in series:
                        await is_told_alone(found, listeners, change)

    with apiserver.running() as server:
        system = System(server)
        filling.fill(system.api, SIZE, lambda _: None)
        asyncio.run(scenario(system))
