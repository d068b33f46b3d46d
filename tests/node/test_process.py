"""`python -m deploy.node` as a node sees it: real programs, namespaces and cgroups; objects from a directory."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.store import kinds
from controller.store.directory import DirectoryStore
from controller.store.interface import Key
from ebpf import cgroups
from ebpf.netns import netns_cookie
from ebpf.node import Capture
from mesh.model.enrolment import DATAPLANE_MODE, REDIRECTION
from tests.ebpf.stage import ROOT, load, loader
from tests.node.place import Kubelet, kubelet
from tests.node.test_admission import request
from tests.node.test_networks import settle
from tests.node.test_zds import PATIENCE, Ztunnel, until

pytestmark = pytest.mark.root


class Machine:
    """One node, with the programs loaded."""

    def __init__(self, directory: Path, place: Kubelet, pins: Path) -> None:
        self.directory, self.place, self.pins = directory, place, pins
        self.store = DirectoryStore(directory / "objects")
        self.capture = Capture.open(pins)
        self.run = directory / "run"
        self.file = directory / "enrolled-namespaces"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def command(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "NODE_NAME": "node1",
            "AMBIT_STORE": f"directory:{self.directory / 'objects'}",
            "AMBIT_BPF_PINS": str(self.pins),
            "AMBIT_CGROUP": str(self.place.kubepods),
            "AMBIT_CNI_SOCKET": str(self.run / "cni.sock"),
            "AMBIT_ENROLLED_NAMESPACES": str(self.file),
            "INPOD_UDS": str(self.run / "ztunnel.sock"),
            "AMBIT_NODE_ADDRESS": "127.0.0.1",
            "AMBIT_NODE_PORT": str(self.port),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "deploy.node", *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    async def page(self, path: str) -> str:
        def get() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(get)

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[subprocess.Popen[str]]:
        process = self.command()
        try:
            await until(lambda: process.poll() is not None or self.answers())
            assert process.poll() is None, process.communicate()[1]
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            told = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
            assert process.returncode == 0, told[1]

    def answers(self, name: str = "cni.sock") -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            return probe.connect_ex(str(self.run / name)) == 0

    async def ztunnel(self) -> Ztunnel:
        await until(lambda: self.answers("ztunnel.sock"))  # the file may be the one of an agent before
        ztunnel = Ztunnel(self.run / "ztunnel.sock", netns=None)
        await ztunnel.begin()
        return ztunnel

    async def label(self, namespace: str, ambient: bool) -> None:
        labels = {DATAPLANE_MODE: "ambient"} if ambient else {}
        await self.store.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
        )

    async def pod(self, name: str, namespace: str = "shop", phase: str = "Running") -> str:
        """Returns its uid."""
        spec = {"nodeName": "node1", "containers": [{"name": "main", "image": "none"}]}
        metadata = {"name": name, "namespace": namespace}
        made = await self.store.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        await self.phase(name, phase, namespace)
        return str(made["metadata"]["uid"])

    async def phase(self, name: str, phase: str, namespace: str = "shop") -> None:
        await self.store.change_status(Key("Pod", namespace, name), lambda obj: obj.update(status={"phase": phase}))

    async def running(self, name: str, namespace: str = "shop") -> tuple[str, int]:
        """A pod that runs already: its uid, and its namespace's cookie."""
        uid, netns = await self.pod(name, namespace), self.place.namespace()
        settle(self.place.run(uid, netns).pid, netns)
        return uid, netns_cookie(netns)

    async def annotated(self, name: str, value: str | None) -> None:
        async with asyncio.timeout(PATIENCE):
            while await self.annotation(name) != value:  # noqa: ASYNC110 - the store has no other way to ask
                await asyncio.sleep(0.01)

    async def annotation(self, name: str) -> Any:
        pod = await self.store.get(kinds.POD, name, "shop")
        return pod["metadata"].get("annotations", {}).get(REDIRECTION)

    def captured(self, uid: str, cookie: int) -> bool:
        return cookie in self.capture.enrolled() and uid in self.capture.attached_inbound()


@contextmanager
def node(directory: Path) -> Iterator[Machine]:
    with kubelet() as place:
        pins = Path("/sys/fs/bpf") / place.name
        try:
            load(pins, cgroups.cgroup2_root() / place.name)
            machine = Machine(directory, place, pins)
            try:
                yield machine
            finally:
                machine.capture.close()
        finally:
            loader("unload", "--pins", str(pins))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with node(tmp_path) as made:
        yield made


def test_running_pods_join_stay_and_leave(machine: Machine) -> None:
    async def story() -> None:
        await machine.label("shop", False)
        uid, cookie = await machine.running("web")
        async with machine.agent():
            ztunnel = await machine.ztunnel()
            await machine.label("shop", True)
            await machine.annotated("web", "enabled")
            assert machine.captured(uid, cookie)
            assert ztunnel.uids == [uid]
            assert machine.capture.exempted() == {cgroups.cgroup_id(cgroups.own_cgroup())}
            assert machine.file.read_text() == "shop\n"
            assert await machine.page("/healthz/ready") == "ready\n"
            assert 'ambit_node_pods{state="enrolled"} 1.0' in await machine.page("/metrics")
            ztunnel.end()
        assert machine.captured(uid, cookie)  # the agent has ended, as when it is restarted
        assert machine.file.read_text() == "shop\n"
        async with machine.agent():
            ztunnel = await machine.ztunnel()
            await until(lambda: ztunnel.uids == [uid])
            assert machine.captured(uid, cookie)
            await machine.label("shop", False)
            await machine.annotated("web", None)
            await until(lambda: not machine.captured(uid, cookie))
            assert machine.file.read_text() == ""
            ztunnel.end()

    asyncio.run(story())


def test_a_new_pod_is_held_until_it_is_captured(machine: Machine) -> None:
    async def story() -> None:
        await machine.label("shop", True)
        async with machine.agent():
            cni = machine.run / "cni.sock"
            netns = machine.place.namespace()
            asked = {"podName": "cart-0", "netns": str(netns), "containerId": "1"}
            uid = await machine.pod("cart-0", phase="Pending")
            answer = asyncio.create_task(request(cni, podUid=uid, **asked))
            other = machine.place.namespace()
            await machine.label("plain", False)
            outside = await machine.pod("cart-0", "plain", phase="Pending")
            assert await request(cni, podUid=outside, podNamespace="plain", netns=str(other)) == {"ok": True}
            assert not answer.done()  # nobody serves it yet
            ztunnel = await machine.ztunnel()
            assert await answer == {"ok": True}
            assert machine.captured(uid, netns_cookie(netns))
            assert machine.capture.counts()["pods_by_address"] == 2
            again = machine.place.namespace()  # its sandbox is made anew
            assert await request(cni, podUid=uid, **{**asked, "netns": str(again), "containerId": "2"}) == {"ok": True}
            assert machine.captured(uid, netns_cookie(again))
            assert not machine.captured(uid, netns_cookie(netns))
            assert await request(cni, command="DEL", podUid=uid, **asked) == {"ok": True}  # of the old one
            assert machine.captured(uid, netns_cookie(again))
            assert await request(cni, command="DEL", podUid=uid, **{**asked, "containerId": "2"}) == {"ok": True}
            assert not machine.capture.enrolled()
            assert not machine.capture.attached_inbound()
            assert machine.capture.counts()["pods_by_address"] == 0
            ztunnel.end()

    asyncio.run(story())


def test_what_is_never_held(machine: Machine) -> None:
    async def story() -> None:
        await machine.label("kube-system", True)
        async with machine.agent():
            asked = {"podNamespace": "kube-system", "netns": "/nowhere"}
            assert await request(machine.run / "cni.sock", **asked) == {"ok": True}
            assert machine.file.read_text() == ""

    asyncio.run(story())


def test_a_pod_of_an_enrolled_namespace_that_nobody_knows_is_refused(machine: Machine) -> None:
    async def story() -> None:
        await machine.label("shop", True)
        async with machine.agent():
            answer = await request(machine.run / "cni.sock", netns=str(machine.place.namespace()))
            assert not answer["ok"]
            assert "shop/cart-0" in answer["reason"]

    asyncio.run(story())


def test_a_job_that_has_ended_leaves_by_itself(machine: Machine) -> None:
    async def story() -> None:
        await machine.label("shop", True)
        uid, cookie = await machine.running("once")
        async with machine.agent():
            ztunnel = await machine.ztunnel()
            await machine.annotated("once", "enabled")
            await machine.phase("once", "Succeeded")
            await machine.annotated("once", None)
            await until(lambda: not machine.captured(uid, cookie))
            ztunnel.end()

    asyncio.run(story())


def test_a_pod_that_vanished_unnoticed_is_forgotten(machine: Machine) -> None:
    """It stays captured while a process of it runs, also when its object is gone, and no longer."""

    async def story() -> None:
        await machine.label("shop", True)
        uid, cookie = await machine.running("web")
        async with machine.agent():
            ztunnel = await machine.ztunnel()
            await machine.annotated("web", "enabled")
            for _ in range(2):
                await machine.store.delete(Key("Pod", "shop", "web"))
            next_uid, next_cookie = await machine.running("web")  # of the same name
            await until(lambda: machine.captured(next_uid, next_cookie))
            assert machine.captured(uid, cookie)
            machine.place.processes[0].kill()
            machine.place.processes[0].wait()
            await until(lambda: cookie not in machine.capture.enrolled())
            assert machine.capture.attached_inbound() == {next_uid}
            ztunnel.end()

    asyncio.run(story())


@pytest.mark.parametrize("running", [True, False], ids=["by the agent", "without one"])
def test_withdraw_leaves_nothing(machine: Machine, running: bool) -> None:
    async def withdraw() -> None:
        process = machine.command("withdraw")
        told = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        assert process.returncode == 0, told[1]

    async def story() -> None:
        await machine.label("shop", True)
        uid, cookie = await machine.running("web")
        async with machine.agent():
            ztunnel = await machine.ztunnel()
            await machine.annotated("web", "enabled")
            assert machine.captured(uid, cookie)
            if running:
                await withdraw()
            ztunnel.end()
        if not running:
            await withdraw()
        assert not machine.pins.exists()
        assert not machine.file.exists()
        assert not list(machine.run.iterdir())
        assert await machine.annotation("web") is None

    asyncio.run(story())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"NODE_NAME": ""}, "NODE_NAME"),
        ({"AMBIT_NODE_PORT": "0"}, "AMBIT_NODE_PORT=0"),
        ({"INPOD_UDS": "ztunnel.sock"}, "INPOD_UDS=ztunnel.sock"),
        ({"AMBIT_STORE": "etcd"}, "AMBIT_STORE=etcd"),
        ({"RUST_LOG": "loud"}, "RUST_LOG"),
        ({"AMBIT_BPF_PINS": "/sys/fs/bpf/ambit-test-nothing"}, "run the loader first"),
    ],
)
def test_wrong_settings_are_told_in_one_line(changes: dict[str, str], word: str) -> None:
    environment = {**os.environ, "NODE_NAME": "node1", "PYTHONPATH": str(ROOT), **changes}
    command = [sys.executable, "-m", "deploy.node"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert word in done.stderr
    assert done.stderr.count("\n") == 1
