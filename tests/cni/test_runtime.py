"""cnitool: libcni, as containerd and CRI-O have it, with the real bridge and host-local plugins in namespaces."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.cni.conflist import Settings
from deploy.cni.install import Installer
from deploy.local import namespaces
from tests.cni.plugin import ALLOWS, POD, agent, says

pytestmark = pytest.mark.root

CNITOOL = "github.com/containernetworking/cni/cnitool@v1.3.0"
BUILD = Path(__file__).parents[2] / "build" / "cni"
PLUGINS = next((path for path in map(Path, ("/usr/lib/cni", "/opt/cni/bin")) if (path / "host-local").exists()), None)
NAME = f"ambit-test-cni-{os.getpid()}"
CACHE = Path("/var/lib/cni/results")  # libcni's, of what ADD gave


@pytest.fixture(scope="module")
def cnitool() -> Path:
    if PLUGINS is None:
        pytest.skip("no CNI plugins here (Debian: containernetworking-plugins)")
    built = BUILD / "cnitool"
    if built.exists():
        return built
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("no Go toolchain to build cnitool with")
    made = subprocess.run(
        [go, "install", CNITOOL], env={**os.environ, "GOBIN": str(BUILD)}, capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"cnitool cannot be built: {made.stderr[-200:]}")
    return built


@dataclass
class Node:
    """A network namespace for the host, one for a pod, and the runtime's directories."""

    cnitool: Path
    installer: Installer
    network: str
    host: str = f"{NAME}-host"
    pod: str = f"{NAME}-pod"

    @property
    def socket(self) -> Path:
        return Path(self.installer.settings.agent_socket)

    def put(self, name: str, document: dict[str, Any]) -> None:
        (self.installer.conf_dir / name).write_text(json.dumps(document))
        self.installer.install()

    def command(self, verb: str, *then: str) -> list[str]:
        """`then` is what runs in the pod after success, as a runtime starts containers."""
        add = f"{self.cnitool} {verb} {self.network} /run/netns/{self.pod}"
        script = add + (f" && exec nsenter --net=/run/netns/{self.pod} {' '.join(then)}" if then else "")
        return ["nsenter", f"--net=/run/netns/{self.host}", "sh", "-c", script]

    def start(self, verb: str, *then: str) -> subprocess.Popen[str]:
        paths = {"NETCONFPATH": self.installer.conf_dir, "CNI_PATH": f"{self.installer.bin_dir}:{PLUGINS}"}
        environment = {**os.environ, "CNI_ARGS": POD, **{name: str(path) for name, path in paths.items()}}
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(verb, *then), stdout=pipe, stderr=pipe, text=True, env=environment)

    def run(self, verb: str, *then: str) -> tuple[int, str, str]:
        process = self.start(verb, *then)
        stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def bridge(directory: Path) -> dict[str, Any]:
    ipam = {"type": "host-local", "subnet": "10.99.0.0/24", "dataDir": str(directory / "leases")}
    return {"type": "bridge", "bridge": "ambitbr0", "isGateway": True, "ipam": ipam}


@pytest.fixture
def node(cnitool: Path, binary: Path, tmp_path: Path) -> Iterator[Node]:
    conf_dir, bin_dir = tmp_path / "net.d", tmp_path / "bin"
    conf_dir.mkdir()
    bin_dir.mkdir()
    settings = Settings(str(tmp_path / "cni.sock"), str(tmp_path / "enrolled-namespaces"), timeout=20, retry=0)
    node = Node(cnitool, Installer(conf_dir, bin_dir, settings, binary), NAME)
    for namespace in (node.host, node.pod):
        ip("netns", "add", namespace)
    try:
        yield node
    finally:
        node.run("del")
        for namespace in (node.host, node.pod):
            with suppress(subprocess.CalledProcessError):
                ip("netns", "del", namespace)
        for left in CACHE.glob(f"{node.network}-*"):
            left.unlink()


def addresses(namespace: str, device: str) -> list[str]:
    shown = json.loads(ip("-n", namespace, "-j", "-4", "address", "show", "dev", device))
    return [address["local"] for link in shown for address in link["addr_info"]]


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
@pytest.mark.parametrize("single", [False, True])
def test_a_pod_comes_and_goes(node: Node, tmp_path: Path, version: str, single: bool) -> None:
    if single:
        node.put("10-x.conf", {"cniVersion": version, "name": node.network, **bridge(tmp_path)})
    else:
        node.put("10-x.conflist", {"cniVersion": version, "name": node.network, "plugins": [bridge(tmp_path)]})
    with agent(node.socket, ALLOWS) as requests:
        code, stdout, stderr = node.run("add")
        assert code == 0, stdout + stderr
        assert json.loads(stdout)["ips"][0]["address"] == f"{addresses(node.pod, 'eth0')[0]}/24"
        if version != "0.3.1":
            assert node.run("check")[0] == 0
        assert node.run("del")[0] == 0
    assert [(request["command"], request["podName"]) for request in requests] == [("ADD", "cart-0"), ("DEL", "cart-0")]
    assert requests[0]["addresses"] == ["10.99.0.2"]
    assert requests[0]["netns"] == f"/run/netns/{node.pod}"


def heard_from_the_pod(node: Node) -> socket.socket:
    """A UDP socket at the pod's gateway, which exists as soon as the bridge does."""

    def bound() -> socket.socket:
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind(("10.99.0.1", 9))
        return listener

    return namespaces.inside(Path("/run/netns", node.host), bound)


SENDS = ("bash", "-c", "'echo first > /dev/udp/10.99.0.1/9; echo sent'")


def test_no_packet_leaves_a_pod_before_the_agent_has_it(node: Node, tmp_path: Path) -> None:
    node.put("10-x.conflist", {"cniVersion": "1.0.0", "name": node.network, "plugins": [bridge(tmp_path)]})
    asked, captured = threading.Event(), threading.Event()

    def once_captured(stream: socket.socket) -> None:
        asked.set()
        captured.wait()
        ALLOWS(stream)

    with agent(node.socket, once_captured) as requests:
        pending = node.start("add", *SENDS)
        assert asked.wait(60)
        assert addresses(node.pod, "eth0") == requests[0]["addresses"]  # the network is whole when the agent is asked
        with heard_from_the_pod(node) as listener:
            with pytest.raises(subprocess.TimeoutExpired):
                pending.wait(1)
            with pytest.raises(BlockingIOError):
                listener.recv(100, socket.MSG_DONTWAIT)
            assert ip("netns", "pids", node.pod) == ""
            captured.set()
            listener.settimeout(60)
            assert listener.recv(100) == b"first\n"
        assert pending.communicate()[0].endswith("sent\n")


@pytest.mark.parametrize("away", [False, True])
def test_a_pod_that_is_refused_never_runs(node: Node, tmp_path: Path, away: bool) -> None:
    node.put("10-x.conflist", {"cniVersion": "1.0.0", "name": node.network, "plugins": [bridge(tmp_path)]})
    Path(node.installer.settings.enrolled_namespaces).write_text("shop\n")
    place = tmp_path / "elsewhere.sock" if away else node.socket
    with agent(place, says({"ok": False, "reason": "ztunnel is away"})):
        code, stdout, stderr = node.run("add", *SENDS)
    assert code != 0
    assert "sent" not in stdout
    assert 'plugin type="ambit-cni" failed (add): pod shop/cart-0 is not started' in stdout + stderr
    with agent(node.socket, ALLOWS):
        node.run("del")  # as runtimes do before they try again
        assert node.run("add", *SENDS)[0] == 0


def test_a_namespace_outside_the_mesh_needs_no_agent(node: Node, tmp_path: Path) -> None:
    node.put("10-x.conflist", {"cniVersion": "1.0.0", "name": node.network, "plugins": [bridge(tmp_path)]})
    Path(node.installer.settings.enrolled_namespaces).write_text("bank\n")
    assert node.run("add")[0] == 0
    assert node.run("del")[0] == 0


def test_after_removal_the_chain_works_without_it(node: Node, tmp_path: Path) -> None:
    node.put("10-x.conflist", {"cniVersion": "1.0.0", "name": node.network, "plugins": [bridge(tmp_path)]})
    with agent(node.socket, ALLOWS):
        assert node.run("add")[0] == 0
    node.installer.remove()
    assert node.run("del")[0] == 0
    assert node.run("add")[0] == 0


def test_status_and_collection_of_version_1_1(node: Node) -> None:
    ours = node.installer.settings.as_plugin()
    document = {"cniVersion": "1.1.0", "name": node.network, "plugins": [{**ours, "x": 1}]}
    node.put("10-x.conflist", document)
    assert node.run("status")[0] == 0
    assert node.run("gc")[0] == 0
    Path(node.installer.settings.enrolled_namespaces).mkdir()
    code, stdout, stderr = node.run("status")
    assert code != 0
    assert "the node agent is away" in stdout + stderr
