"""The CNI plugin's socket, as the plugin and as strangers see it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from deploy.node.admission import MAX_REQUEST, AdmissionServer, Refused, Request, parse
from mesh.model.address import Ip
from tests.node.test_zds import PATIENCE, until

ADD = {
    "version": 1,
    "command": "ADD",
    "podNamespace": "shop",
    "podName": "cart-0",
    "podUid": "8dbc33a1-6d1f-4a58-b0b4-7c1d4e0a2f55",
    "netns": "/var/run/netns/cni-1",
    "containerId": "4f4f",
    "addresses": ["10.0.0.7/24", "fd00::7"],
    "later": "members of later versions are ignored",
}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
requests = st.dictionaries(st.sampled_from(sorted(ADD)), values).map(lambda said: json.dumps({**ADD, **said}).encode())


def test_a_request() -> None:
    assert parse(json.dumps(ADD).encode()) == Request(
        "ADD", "shop", "cart-0", str(ADD["podUid"]), "/var/run/netns/cni-1", "4f4f", (Ip("10.0.0.7"), Ip("fd00::7"))
    )


@given(st.binary() | requests)
def test_whatever_is_said_is_a_request_or_refused(packet: bytes) -> None:
    with suppress(Refused):
        assert isinstance(parse(packet), Request)


async def ask(path: Path, packet: bytes) -> Any:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as stream:
        await loop.sock_connect(stream, str(path))
        await loop.sock_sendall(stream, packet)
        async with asyncio.timeout(PATIENCE):
            return json.loads(await loop.sock_recv(stream, 4096))


async def request(path: Path, **changes: object) -> Any:
    return await ask(path, json.dumps({**ADD, **changes}).encode())


@asynccontextmanager
async def serving(path: Path, handler: Any) -> AsyncIterator[AdmissionServer]:
    server = AdmissionServer(path, {"ADD": handler})
    task = asyncio.create_task(server.serve())
    await until(path.exists)
    try:
        yield server
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_answers(tmp_path: Path) -> None:
    async def handler(asked: Request) -> None:
        if asked.name == "bad":
            raise Refused("it is bad")

    async def story() -> None:
        path = tmp_path / "run" / "cni.sock"
        async with serving(path, handler) as server:
            assert await request(path) == {"ok": True}
            assert await request(path, podName="bad") == {"ok": False, "reason": "it is bad"}
            assert "not known" in (await request(path, command="FORMAT"))["reason"]
            assert "version 1" in (await request(path, version=2))["reason"]
            assert "not JSON" in (await ask(path, b"{"))["reason"]
            assert "not JSON" in (await ask(path, b"[" * (MAX_REQUEST - 1)))["reason"]
            assert server.answered == {"ok": 1, "refused": 5}

    asyncio.run(story())


def test_the_socket_is_for_root_only(tmp_path: Path) -> None:
    async def story() -> None:
        path = tmp_path / "run" / "cni.sock"
        async with serving(path, None):
            assert path.stat().st_mode & 0o777 == 0o600
            assert path.parent.stat().st_mode & 0o777 == 0o700

    asyncio.run(story())


def test_one_that_waits_holds_nobody_up(tmp_path: Path) -> None:
    """Nor does one that hangs up, or says nothing."""
    go = asyncio.Event()

    async def handler(asked: Request) -> None:
        if asked.name == "slow":
            await go.wait()

    async def story() -> None:
        path = tmp_path / "run" / "cni.sock"
        async with serving(path, handler):
            silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            silent.connect(str(path))
            slow = asyncio.create_task(request(path, podName="slow"))
            gone = asyncio.create_task(request(path, podName="slow"))
            await asyncio.sleep(0)
            gone.cancel()
            assert await request(path) == {"ok": True}
            assert not slow.done()
            go.set()
            assert await slow == {"ok": True}
            silent.close()

    asyncio.run(story())
