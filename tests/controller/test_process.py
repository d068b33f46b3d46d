"""The controller as its peers and its operators see it: a process, files in, xDS and certificates out."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from controller.authority.tokens import issue_node_token
from controller.store.interface import Key
from controller.store.kinds import POD
from mesh.model.workload import TunnelProtocol, Workload
from tests.compile.objects import endpoint_slice, namespace, node, pod, service, to_pod
from tests.controller.process import PATIENCE, Controller, Ztunnel, controller, free_port, run

UID = "Kubernetes//Pod/shop/web-1"
WEB = Key("Pod", "shop", "web-1")
IDENTITY = "spiffe://cluster.local/ns/shop/sa/web"


async def put(found: Controller, *objects: dict[str, Any]) -> None:
    """As a node would: the status is written after the object."""
    for obj in objects:
        await found.store.apply(obj)
        if "status" in obj:
            key = Key(obj["kind"], obj["metadata"]["namespace"], obj["metadata"]["name"])
            await found.store.change_status(key, lambda each, obj=obj: each.update(status=obj["status"]))  # type: ignore[misc]


def test_it_starts_on_an_empty_store_and_ends_cleanly(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controller(tmp_path) as found:
            assert await found.get("/ready") == (200, "ready\n")
            status = await found.status()
            assert status["published"] == {"workloads": 0, "services": 0}
            assert "pilot_xds 0.0" in (await found.get("/metrics"))[1]
            channel = found.channel()
            ztunnel = Ztunnel(channel, found.token("node1"))
            await ztunnel.subscribe()
            await ztunnel.until(lambda mesh: len(ztunnel.heard) == 2)  # both types are answered, even when empty
            ended, errors = await found.stop()
            assert ended == 0
            assert "Traceback" not in errors
            await channel.close()

    run(scenario())


def test_a_pod_reaches_the_ztunnels_and_every_change_after_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controller(tmp_path) as found, found.channel() as channel:
            ztunnel = Ztunnel(channel, found.token("node1"))
            await ztunnel.subscribe()
            await put(found, namespace(), node(), service("web", "10.2.0.1"), pod("web-1", "10.1.0.1"))
            await put(found, endpoint_slice("web-x", "web", [to_pod("web-1")]))
            await ztunnel.until(lambda mesh: UID in mesh and mesh[UID].services)  # type: ignore[union-attr]
            assert "shop/web.shop.svc.cluster.local" in ztunnel.mesh

            def enrol(obj: dict[str, Any]) -> None:
                obj["metadata"]["annotations"]["ambient.istio.io/redirection"] = "enabled"

            await found.store.change(WEB, enrol)
            await ztunnel.until(lambda mesh: _protocol(mesh[UID]) is TunnelProtocol.HBONE)
            assert [resource.name for resource in ztunnel.heard[-1].resources] == [UID]
            await found.store.delete(WEB)
            await found.store.delete(WEB)  # its node has ended it
            await ztunnel.until(lambda mesh: UID not in mesh)
            (shown,) = (await found.status())["ztunnels"]
            assert shown["node"] == "node1"
            await found.status_until(
                lambda status: status["ztunnels"][0]["types"]["Address"]["acknowledged"] == status["version"]
            )

    run(scenario())


def _protocol(value: object) -> TunnelProtocol:
    assert isinstance(value, Workload)
    return value.tunnel_protocol


def test_a_certificate_is_issued_for_what_runs_on_the_node_now(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controller(tmp_path) as found, found.channel() as channel:
            mine, other = Ztunnel(channel, found.token("node1")), Ztunnel(channel, found.token("node2"))
            await put(found, pod("web-1", "10.1.0.1"))
            await found.status_until(lambda status: status["objects"]["pods"] == 1)
            leaf = await mine.certificate(IDENTITY)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert [name.value for name in names] == [IDENTITY]
            for who, what in ((other, IDENTITY), (mine, "spiffe://cluster.local/ns/shop/sa/other")):
                assert await _refusal(who, what) is grpc.StatusCode.PERMISSION_DENIED
            await found.store.change_status(WEB, lambda obj: obj["status"].update(phase="Failed"))
            await found.status_until(lambda status: status["published"]["workloads"] == 0)
            assert await _refusal(mine, IDENTITY) is grpc.StatusCode.PERMISSION_DENIED

    run(scenario())


async def _refusal(ztunnel: Ztunnel, identity: str) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ztunnel.certificate(identity)
    return raised.value.code()


def test_a_stranger_is_told_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controller(tmp_path) as found, found.channel() as channel:
            stranger = Ztunnel(channel, issue_node_token(tmp_path / "other-key.pem", "node1", 600))
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stranger.until(lambda mesh: stranger.heard)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED

    run(scenario())


def test_what_is_wrong_is_in_the_status_the_condition_and_nowhere_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controller(tmp_path) as found:
            await put(found, pod("web-1", "10.1.0.1"))
            wrong = {"istio.io/dataplane-mode": "x"}
            await put(found, pod("web-2", "10.1.0.1", labels=wrong), pod("web-3", "10.1.0.3"))
            status = await found.status_until(
                lambda status: (len(status["problems"]), status["published"]["workloads"]) == (2, 2)
            )
            assert {problem["name"] for problem in status["problems"]} == {"web-2"}
            await _condition(found, "web-2", "False", "10.1.0.1 is the address of Pod shop/web-1 already")
            await found.store.delete(WEB)
            await found.store.delete(WEB)  # its node has ended it

            def correct(obj: dict[str, Any]) -> None:
                obj["metadata"]["labels"] = {}

            await found.store.change(Key("Pod", "shop", "web-2"), correct)
            await _condition(found, "web-2", "True")
            for name in ("web-2", "web-3"):
                kept = (await found.store.get(POD, name, "shop"))["status"]["conditions"]
                assert kept[0] == {"type": "Ready", "status": "True"}
            assert len(kept) == 1  # what never had a problem is not written to

    run(scenario())


async def _condition(found: Controller, name: str, status: str, message: str = "") -> None:
    """Waits until the pod has the condition, with a message that holds `message`."""
    wanted = ("ambit.io/Accepted", status)
    async with asyncio.timeout(PATIENCE):
        while True:
            conditions = (await found.store.get(POD, name, "shop"))["status"]["conditions"]
            if any((each["type"], each["status"]) == wanted and message in each["message"] for each in conditions[1:]):
                return
            await asyncio.sleep(0.02)


def test_garbage_in_the_store_is_named_and_disturbs_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        broken = tmp_path / "objects/pods/shop/broken.yaml"
        broken.parent.mkdir(parents=True)
        broken.write_text("kind: [")
        (tmp_path / "objects/nonsense").write_bytes(b"\0")
        async with controller(tmp_path) as found:
            await put(found, pod("web-1", "10.1.0.1"))
            status = await found.status_until(lambda status: status["published"]["workloads"] == 1)
            assert len(status["files"]) == 2
            broken.with_name("web-1.yaml").write_text("spec: 3")
            status = await found.status_until(lambda status: len(status["files"]) == 3)
            assert status["published"]["workloads"] == 1
            _, errors = await found.stop()
            assert f"{broken}:" in errors

    run(scenario())


def test_a_store_that_vanishes_takes_nothing_with_it_and_may_come_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controller(tmp_path) as found, found.channel() as channel:
            ztunnel = Ztunnel(channel, found.token("node1"))
            await ztunnel.subscribe()
            await put(found, pod("web-1", "10.1.0.1"), pod("web-2", "10.1.0.2"))
            await ztunnel.until(lambda mesh: len(mesh) == 2)
            aside = tmp_path / "aside"
            found.store.root.rename(aside)
            (aside / "pods/shop/web-2.yaml").unlink()
            assert (await ztunnel.certificate(IDENTITY)).not_valid_after_utc
            aside.rename(found.store.root)
            await ztunnel.until(lambda mesh: len(mesh) == 1)
            assert not any(UID in response.removed_resources for response in ztunnel.heard)

    run(scenario())


def test_after_a_restart_ztunnels_get_only_what_has_changed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with controller(tmp_path) as found:
            await put(found, pod("web-1", "10.1.0.1"), pod("web-2", "10.1.0.2"))
            token = found.token("node1")
            async with found.channel() as channel:
                before = Ztunnel(channel, token)
                await before.subscribe()
                await before.until(lambda mesh: len(mesh) == 2)
            await found.stop(signal.SIGKILL)
            await found.store.delete(WEB)
            await found.store.delete(WEB)  # its node has ended it
            await put(found, pod("web-3", "10.1.0.3"))
            await found.start()
            async with found.channel() as channel:  # the same root, and the token still counts
                after = Ztunnel(channel, token)
                await after.subscribe(before.versions)
                await after.until(lambda mesh: mesh)
                assert list(after.mesh) == ["Kubernetes//Pod/shop/web-3"]
                assert [name for response in after.heard for name in response.removed_resources] == [UID]

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--listen", "127.0.0.1:{taken}"], "cannot listen on 127.0.0.1:{taken}: the address is in use"),
        (
            ["--admin", "127.0.0.1:{taken}"],
            "the admin server cannot listen on 127.0.0.1:{taken}: Address already in use",
        ),
        (["--store", "directory:/proc/x"], "cannot make the store directory /proc/x: "),
        (["--state", "/proc/x"], "cannot write /proc/x/ca: "),
        (["--store", "elsewhere"], "argument --store: 'elsewhere' is not directory:PATH"),
        (["--listen", "here"], "argument --listen: no host and port in 'here'"),
        (["--log", "loud"], "argument --log: 'loud' is not LEVEL or TARGET=LEVEL"),
    ],
)
def test_what_keeps_it_from_starting_is_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = Controller(tmp_path, free_port(), free_port()).command(*(a.format(taken=port) for a in arguments))
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode != 0
    last = ended.stderr.strip().splitlines()[-1]
    assert sentence.format(taken=port) in last
    assert "Traceback" not in ended.stderr
    assert not ended.stdout
