"""The node agent's side of ZDS, against ztunnel's side of it (the real codec) and against peers that break it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.node.zds import Member, NotServed, ZdsServer
from ztunnel.agent import zds

NETNS = Path("/proc/self/ns/net")
PATIENCE = 30.0  # seconds until a test that waits for something fails


class Ztunnel:
    """Answers as ztunnel does; `refuses` are uids that it cannot serve. Pods are in `netns`, or anywhere."""

    def __init__(self, path: Path, refuses: frozenset[str] = frozenset(), netns: Path | None = NETNS) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(path))
        self.socket.setblocking(False)
        self.actions: list[zds.Action] = []
        self._session, self._refuses, self._netns = zds.Session(), refuses, netns
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, zds.hello())
        self._task = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            ready = asyncio.Event()
            loop.add_reader(self.socket, ready.set)
            await ready.wait()
            loop.remove_reader(self.socket)
            packet, descriptors, _, _ = socket.recv_fds(self.socket, zds.MAX_PACKET, 4)
            if not packet:
                return
            action = self._session.received(packet, descriptors)
            self.actions.append(action)
            for descriptor in descriptors:
                assert self._netns is None or os.fstat(descriptor).st_ino == os.stat(self._netns).st_ino
                os.close(descriptor)
            refused = isinstance(action, zds.Add) and action.uid in self._refuses
            self.socket.send(zds.acknowledgement("no listener" if refused else ""))

    def end(self) -> None:
        if self._task:
            self._task.cancel()
        asyncio.get_running_loop().remove_reader(self.socket)
        self.socket.close()

    @property
    def uids(self) -> list[str]:
        return [action.uid for action in self.actions if isinstance(action, zds.Add)]


def member(uid: str) -> Member:
    return Member(uid, f"name-{uid}", "shop", "web", NETNS)


@asynccontextmanager
async def serving(path: Path, *members: str) -> AsyncIterator[ZdsServer]:
    server = ZdsServer(path, lambda: [member(uid) for uid in members], lambda: None)
    task = asyncio.create_task(server.serve())
    await until(path.exists)
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: object) -> None:
    assert callable(true)
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - it may be about anything
            await asyncio.sleep(0.005)


async def connect(server: ZdsServer, path: Path, **options: frozenset[str]) -> Ztunnel:
    before = server.connected
    ztunnel = Ztunnel(path, **options)
    await ztunnel.begin()
    await until(lambda: server.connected == before + 1)
    return ztunnel


def test_snapshot_then_changes(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "zds.sock"
        async with serving(path, "a", "b") as server:
            ztunnel = await connect(server, path)
            assert ztunnel.uids == ["a", "b"]
            assert ztunnel.actions[-1] == zds.Synced(frozenset({"a", "b"}))
            assert server.serves("a")
            assert not server.serves("c")
            await server.add(member("c"))
            add = ztunnel.actions[-1]
            assert isinstance(add, zds.Add)
            assert (add.uid, add.name, add.namespace, add.service_account) == ("c", "name-c", "shop", "web")
            await server.delete("a")
            assert ztunnel.actions[-1] == zds.Remove("a")
            assert not server.serves("a")
            ztunnel.end()

    asyncio.run(story())


def test_a_pod_that_ztunnel_refuses(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "zds.sock"
        async with serving(path, "good", "bad") as server:
            ztunnel = await connect(server, path, refuses=frozenset({"bad", "worse"}))
            assert server.serves("good")
            assert not server.serves("bad")
            with pytest.raises(NotServed, match="no listener"):
                await server.add(member("worse"))
            await server.add(member("fine"))
            ztunnel.end()

    asyncio.run(story())


def test_two_ztunnels_during_an_upgrade(tmp_path: Path) -> None:
    """Pods are added to the newest and removed from both; when the newest goes, the old one counts again."""

    async def story() -> None:
        path = tmp_path / "zds.sock"
        async with serving(path, "a") as server:
            old, new = await connect(server, path), await connect(server, path)
            await server.add(member("b"))
            assert (old.uids, new.uids) == (["a"], ["a", "b"])
            await server.delete("a")
            assert old.actions[-1] == new.actions[-1] == zds.Remove("a")
            new.end()
            await until(lambda: server.connected == 1)
            assert not server.serves("b")
            await server.add(member("b"))
            assert old.uids == ["a", "b"]
            old.end()

    asyncio.run(story())


def test_ztunnel_goes(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "zds.sock"
        async with serving(path, "a") as server:
            (await connect(server, path)).end()
            await until(lambda: not server.connected)
            assert not server.serves("a")
            with pytest.raises(NotServed, match="not connected"):
                await server.add(member("a"))
            await server.delete("a")  # nobody serves it: done
            again = await connect(server, path)
            assert again.uids == ["a"]
            again.end()

    asyncio.run(story())


@pytest.mark.parametrize("greeting", [b"", b"\xff\xff garbage", b"\x08\x07"])
def test_who_does_not_greet_gets_no_pods(tmp_path: Path, greeting: bytes) -> None:
    """Descriptors of pods' namespaces are for ztunnel only; others still can connect afterwards."""

    async def story() -> None:
        path = tmp_path / "zds.sock"
        async with serving(path, "a") as server:
            stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stranger.connect(str(path))
            stranger.setblocking(False)
            if greeting:
                stranger.send(greeting)
            else:
                stranger.shutdown(socket.SHUT_WR)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(PATIENCE):
                try:
                    assert await loop.sock_recv(stranger, 1024) == b""
                except ConnectionResetError:
                    pass  # closed with our greeting unread
            stranger.close()
            ztunnel = await connect(server, path)
            assert ztunnel.uids == ["a"]
            ztunnel.end()

    asyncio.run(story())


def test_the_socket_is_for_root_only(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "zds.sock"
        async with serving(path):
            assert path.stat().st_mode & 0o777 == 0o600

    asyncio.run(story())
