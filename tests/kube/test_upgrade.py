"""The release is upgraded, then uninstalled and installed again, while pods inside and beside the mesh are busy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from cli.demo.kubernetes.traces import Node, traces
from tests.cluster import images, nodes
from tests.cluster.commands import CommandError
from tests.kube import artifacts, pods
from tests.kube.installed import CHART, GONE_WITHIN, NAMESPACE, RELEASE, KubeMesh, helm, install
from tests.scenarios.home import Running

MARKER = "upgrade-in-clear"
REQUESTS = 100


@dataclass(frozen=True)
class Pair:
    """A client on one node, a server on the other."""

    namespace: str
    address: str

    @classmethod
    def make(cls, mesh: KubeMesh, namespace: str) -> Pair:
        one, other = mesh.nodes
        made = (pods.idle(namespace, "client", one), pods.server(namespace, "server", other))
        mesh.apply(pods.manifest(*made, pods.service(namespace, "server")))
        mesh.wait_ready(namespace)
        return cls(namespace, mesh.service_addresses(f"{namespace}/server")[0])

    def load(self, mesh: KubeMesh, *, kept: int) -> Running:
        return mesh.load(f"{self.namespace}/client", self.address, pods.PORT, MARKER + self.namespace, kept=kept)

    def requests(self, mesh: KubeMesh) -> Mapping[str, object]:
        """The outcome of some, one after the other, each on a connection of its own."""
        words = (f"{self.address}:{pods.PORT}", MARKER + self.namespace, "0", "1", str(REQUESTS))
        return dict(json.loads(mesh.exec(f"{self.namespace}/client", "/traffic", "load", *words).splitlines()[-1]))


@pytest.fixture(scope="module")
def plain(mesh: KubeMesh) -> Iterator[Pair]:
    with mesh.namespace("beside") as namespace:
        yield Pair.make(mesh, namespace)


@pytest.fixture(scope="module")
def meshed(mesh: KubeMesh, plain: Pair) -> Iterator[Pair]:
    with mesh.namespace("upgraded", meshed=True) as namespace:
        pair = Pair.make(mesh, namespace)
        mesh.wait_redirected(namespace)
        yield pair


@pytest.fixture(scope="module")
def next_tag(mesh: KubeMesh) -> Iterator[str]:
    """The same images by another name: all that makes an upgrade of one. Afterwards the release has its own again."""
    tag = f"{mesh.tag}-next"
    for node in mesh.nodes:
        for image in artifacts.IMAGES:
            name = f"docker.io/ambit/{image}"
            mesh.on_node(node, *images.CTR, "tag", "--force", f"{name}:{mesh.tag}", f"{name}:{tag}")
    yield tag
    install(mesh.cluster, mesh.tag)


def test_an_upgrade_may_refuse_for_a_while_and_never_falls_back_to_plain_text(
    mesh: KubeMesh, meshed: Pair, plain: Pair, next_tag: str
) -> None:
    containers, before = containers_of(mesh, meshed), instances(mesh)
    with mesh.sniff((MARKER + meshed.namespace).encode()) as clear:
        inside, beside = meshed.load(mesh, kept=4), plain.load(mesh, kept=4)
        install(mesh.cluster, next_tag)
        in_mesh, in_plain_text = inside.finish(), beside.finish()
        after = meshed.requests(mesh)
    assert not before & instances(mesh)  # all of Ambit's pods were replaced
    assert clear.found == []
    assert clear.missed == 0
    assert in_mesh["good"]
    assert after["bad"] == {}, after["failures"]
    assert in_plain_text["bad"] == {}, in_plain_text["failures"]
    assert containers_of(mesh, meshed) == containers
    assert mesh.ambit("status").returncode == 0


@pytest.mark.parametrize("path", ["pins=/sys/fs/bpf/other", "run=/run/other", "cniConf=/etc/cni/other"])
def test_an_upgrade_does_not_leave_behind_what_is_at_other_paths(mesh: KubeMesh, path: str) -> None:
    with pytest.raises(CommandError, match="uninstall first"):
        helm(mesh.cluster, "upgrade", RELEASE, str(CHART), "--reuse-values", "--set", f"node.paths.{path}")


def test_an_uninstallation_leaves_pods_that_talk_in_plain_text_and_nothing_else(
    mesh: KubeMesh, meshed: Pair, plain: Pair, next_tag: str
) -> None:
    containers = containers_of(mesh, meshed)
    inside, beside = meshed.load(mesh, kept=0), plain.load(mesh, kept=4)
    helm(mesh.cluster, "uninstall", RELEASE, "--wait", "--timeout", GONE_WITHIN)
    try:
        in_mesh = inside.finish()
        with mesh.sniff((MARKER + meshed.namespace).encode()) as clear:
            after = meshed.requests(mesh)
        assert clear.found
        assert after["bad"] == {}, after["failures"]
        assert in_mesh["bad"] == {}, in_mesh["failures"]  # nodes let pods go while ztunnel still serves
        assert set(mesh.redirections(meshed.namespace).values()) == {""}
        assert [what for node in mesh.nodes for what in left_on(mesh, node)] == []
    finally:
        install(mesh.cluster, mesh.tag)
    in_plain_text = beside.finish()
    assert in_plain_text["bad"] == {}, in_plain_text["failures"]
    assert containers_of(mesh, meshed) == containers


def left_on(mesh: KubeMesh, name: str) -> list[str]:
    """Files and places in the kernel that are Ambit's."""
    node = mesh.cluster.node(name)
    found = traces(Node.of(name, nodes.paths(node)))
    ours = [f"{name}: {where}: {what}" for where, what in found.items() if "ambit" in where or "programs" in what]
    chain = mesh.on_node(name, "sh", "-c", "cat /etc/cni/net.d/*")
    return [*ours, *([f"{name}: CNI chain"] if "ambit" in chain else [])]


def instances(mesh: KubeMesh) -> set[str]:
    found = mesh.get("pods", "-n", NAMESPACE, "-l", "app in (ambit-node, ambit-controller)")["items"]
    return {each["metadata"]["uid"] for each in found}


def containers_of(mesh: KubeMesh, pair: Pair) -> dict[str, tuple[str, int]]:
    return {
        each["metadata"]["name"]: (status["containerID"], status["restartCount"])
        for each in mesh.get("pods", "-n", pair.namespace)["items"]
        for status in each["status"]["containerStatuses"]
    }
