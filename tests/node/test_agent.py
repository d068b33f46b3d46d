"""The node agent as pods and ztunnel see it: a real store and a real ZDS socket, and a kernel that only takes notes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.store import kinds
from controller.store.directory import DirectoryStore
from controller.store.interface import Key
from deploy.mirror import Mirror
from deploy.node import agent as node_agent
from deploy.node.agent import NodeAgent
from ebpf.netns import netns_cookie
from mesh.model.address import Ip
from mesh.model.enrolment import DATAPLANE_MODE, REDIRECTION, REDIRECTION_REASON
from tests.node.test_zds import NETNS, PATIENCE, Ztunnel, until
from ztunnel.agent import zds

pytestmark = pytest.mark.root  # asking for a namespace's cookie means entering it

KEY = Key("Pod", "shop", "web")


class Kernel:
    """Notes what is captured, and in which order it came to be."""

    def __init__(self) -> None:
        self.cookies: set[int] = set()
        self.names: set[str] = set()
        self.story: list[str] = []

    def enrol(self, netns_cookie: int, addresses: Iterable[Ip] = ()) -> None:
        self.cookies.add(netns_cookie)
        self.story.append("enrol")

    def withdraw(self, netns_cookie: int) -> None:
        self.cookies.discard(netns_cookie)
        self.story.append("withdraw")

    def enrolled(self) -> frozenset[int]:
        return frozenset(self.cookies)

    def attach_inbound(self, netns_fd: int, name: str) -> None:
        self.names.add(name)
        self.story.append("attach")

    def detach_inbound(self, name: str) -> None:
        self.names.discard(name)
        self.story.append("detach")

    def attached_inbound(self) -> frozenset[str]:
        return frozenset(self.names)

    def is_attached_to_living(self, name: str) -> bool:
        return False


class Networks:
    def __init__(self) -> None:
        self.known = True

    def netns(self, uid: str) -> Path | None:
        return NETNS if self.known else None


class World:
    """One node with one pod."""

    def __init__(self, directory: Path) -> None:
        self.store = DirectoryStore(directory / "objects")
        self.socket = directory / "zds.sock"
        self.kernel, self.networks = Kernel(), Networks()
        self.uid = ""

    async def fill(self, ambient: bool) -> None:
        labels = {DATAPLANE_MODE: "ambient"} if ambient else {}
        await self.store.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}}
        )
        spec = {"nodeName": "node1", "containers": [{"name": "main"}], "serviceAccountName": "web"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"}, "spec": spec}
        self.uid = (await self.store.apply(pod))["metadata"]["uid"]

    async def add_pod(self, name: str, ambient: bool, **more: Any) -> str:
        labels = {DATAPLANE_MODE: "ambient" if ambient else "none"}
        spec = {"nodeName": "node1", "containers": [{"name": "main"}], **more}
        metadata = {"name": name, "namespace": "shop", "labels": labels}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        return str((await self.store.apply(pod))["metadata"]["uid"])

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[NodeAgent]:
        mirror = Mirror(self.store, (kinds.NAMESPACE, kinds.POD))
        agent = NodeAgent("node1", self.store, mirror, self.networks, self.kernel, self.socket)
        tasks = [asyncio.create_task(mirror.run()), asyncio.create_task(agent.run())]
        await mirror.synced.wait()
        await until(self.socket.exists)
        try:
            yield agent
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.socket.unlink(missing_ok=True)

    async def ztunnel(self) -> Ztunnel:
        ztunnel = Ztunnel(self.socket)
        await ztunnel.begin()
        return ztunnel

    async def label(self, ambient: bool) -> None:
        def edit(obj: dict[str, Any]) -> None:
            obj["metadata"]["labels"] = {DATAPLANE_MODE: "ambient"} if ambient else {}

        await self.store.change(Key("Namespace", "", "shop"), edit)

    async def annotation(self, name: str = REDIRECTION) -> str | None:
        pod = await self.store.get(kinds.POD, "web", "shop")
        found: str | None = pod["metadata"].get("annotations", {}).get(name)
        return found

    async def annotated(self, value: str | None) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.annotation() != value:  # noqa: ASYNC110 - the store has no other way to ask
                await asyncio.sleep(0.01)

    @property
    def closed(self) -> bool:
        return (self.kernel.cookies, self.kernel.names) == ({netns_cookie(NETNS)}, {self.uid})

    @property
    def open(self) -> bool:
        return not self.kernel.cookies and not self.kernel.names


def test_a_label_comes_and_goes(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.fill(ambient=False)
        async with world.agent():
            ztunnel = await world.ztunnel()
            await until(lambda: ztunnel.actions == [zds.Synced(frozenset())])
            await world.label(True)
            await world.annotated("enabled")
            assert ztunnel.uids == [world.uid]
            assert world.kernel.story == ["attach", "enrol"]
            await world.label(False)
            await world.annotated(None)
            await until(lambda: ztunnel.actions[-1] == zds.Remove(world.uid))
            assert world.kernel.story == ["attach", "enrol", "withdraw", "detach"]
            assert world.open
            ztunnel.end()

    asyncio.run(story())


def test_a_new_pod_waits_until_it_is_captured(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.fill(ambient=True)
        async with world.agent() as agent:
            told: list[str] = []
            admitted = asyncio.create_task(agent.admitted(world.uid, told.append))
            await until(lambda: any("not connected" in each for each in told))
            assert not admitted.done()
            ztunnel = await world.ztunnel()
            async with asyncio.timeout(PATIENCE):
                await admitted
            assert world.closed
            ztunnel.end()

    asyncio.run(story())


def test_a_pod_outside_the_mesh_waits_for_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.fill(ambient=False)
        async with world.agent() as agent, asyncio.timeout(PATIENCE):
            await agent.admitted(world.uid, lambda _: None)
            assert world.open

    asyncio.run(story())


def test_without_ztunnel_a_running_pod_is_refused_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.fill(ambient=False)
        async with world.agent():
            await world.label(True)
            await until(lambda: world.closed)
            await world.annotated("pending")
            reason = await world.annotation(REDIRECTION_REASON)
            assert reason is not None
            assert "not connected" in reason
            ztunnel = await world.ztunnel()
            await world.annotated("enabled")
            assert await world.annotation(REDIRECTION_REASON) is None
            ztunnel.end()

    monkeypatch.setattr(node_agent, "PATIENCE", 0.0)
    asyncio.run(story())


def test_a_restarted_agent_goes_on(tmp_path: Path) -> None:
    """Nothing is let out in between, and what pods that are gone have left is removed."""

    async def story() -> None:
        world = World(tmp_path)
        await world.fill(ambient=True)
        async with world.agent():
            ztunnel = await world.ztunnel()
            await world.annotated("enabled")
            ztunnel.end()
        assert world.closed
        world.kernel.cookies.add(4711)
        before = len(world.kernel.story)
        async with world.agent():
            await until(lambda: 4711 not in world.kernel.cookies)
            again = await world.ztunnel()
            await until(lambda: again.uids == [world.uid])
            assert world.closed
            assert world.kernel.story[before:] == ["withdraw"]
            again.end()

    asyncio.run(story())


def test_a_pod_on_the_host_takes_nobody_out_of_the_mesh(tmp_path: Path) -> None:
    """A process of it may be in any pod's namespace, as ztunnel's are."""

    async def story() -> None:
        world = World(tmp_path)
        await world.fill(ambient=True)
        async with world.agent() as agent:
            ztunnel = await world.ztunnel()
            await world.annotated("enabled")
            await world.add_pod("ztunnel", ambient=True, hostNetwork=True)
            await until(lambda: agent._mirror.get("Pod", "shop", "ztunnel") is not None)
            agent.look()
            await asyncio.sleep(0)
            assert world.closed
            assert world.kernel.story == ["attach", "enrol"]
            ztunnel.end()

    asyncio.run(story())


def test_who_leaves_does_not_take_another_along(tmp_path: Path) -> None:
    """Two pods in one namespace are a mistake, of whoever finds namespaces: then the one in the mesh stays there."""

    async def story() -> None:
        world = World(tmp_path)
        await world.fill(ambient=True)
        async with world.agent() as agent:
            ztunnel = await world.ztunnel()
            await world.annotated("enabled")
            visitor = await world.add_pod("visitor", ambient=False)
            await until(lambda: visitor in agent.known())
            async with asyncio.timeout(PATIENCE):
                await agent.released(visitor)
                await agent.released("an earlier agent knew it")
            assert world.closed
            assert world.kernel.story == ["attach", "enrol", "detach"]
            ztunnel.end()

    asyncio.run(story())


def test_a_pod_that_is_captured_no_more_is_captured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever it was: it is undone, counted, and said."""

    async def story() -> None:
        world = World(tmp_path)
        await world.fill(ambient=True)
        async with world.agent() as agent:
            ztunnel = await world.ztunnel()
            await world.annotated("enabled")
            world.kernel.cookies.clear()
            agent.look()
            await until(lambda: world.closed)
            assert agent.recaptured == 1
            assert "Pod shop/web was captured and is not any more" in caplog.text
            await world.label(False)
            await until(lambda: world.open)
            await world.label(True)
            await until(lambda: world.closed)
            assert agent.recaptured == 1
            ztunnel.end()

    asyncio.run(story())


def test_a_deleted_pod_stays_captured_to_its_end(tmp_path: Path) -> None:
    async def story() -> None:
        world = World(tmp_path)
        await world.fill(ambient=True)
        async with world.agent() as agent:
            ztunnel = await world.ztunnel()
            await world.annotated("enabled")
            await world.store.delete(KEY)
            await world.store.delete(KEY)  # also from the store, as when somebody removes its file
            await until(lambda: agent._mirror.get("Pod", "shop", "web") is None)
            agent.look()
            assert world.closed
            async with asyncio.timeout(PATIENCE):
                await agent.released(world.uid)
            assert world.open
            assert ztunnel.actions[-1] == zds.Remove(world.uid)
            ztunnel.end()

    asyncio.run(story())
