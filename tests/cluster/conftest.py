"""A dual-stack cluster of two nodes for the tests of the cluster itself, with pods on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import images
from tests.cluster.commands import run
from tests.cluster.control_plane import kubectl
from tests.cluster.daemons import inside
from tests.cluster.fixture import running, unusable
from tests.cluster.image_archive import make_image
from tests.cluster.plan import BIN, Cluster

IMAGE = "localhost/ambit-test/probe:dev"
APPS = Path(__file__).with_name("apps.yaml")


@dataclass(frozen=True)
class Busy:
    """The cluster, and what its pods and neighbours get when they ask."""

    cluster: Cluster

    def kubectl(self, *arguments: str) -> str:
        return kubectl(self.cluster, *arguments)

    def get(self, kind: str, name: str, path: str) -> str:
        return self.kubectl("get", kind, name, "-o", f"jsonpath={{{path}}}")

    def web_addresses(self) -> dict[str, str]:
        """The node of the web pod that has the address."""
        pods = json.loads(self.kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]
        return {address["ip"]: pod["spec"]["nodeName"] for pod in pods for address in pod["status"]["podIPs"]}

    def fetch(self, url: str, *token: str) -> str:
        """What the client pod gets."""
        return self.kubectl("exec", "client", "--", "/probe", "get", url, *token).strip()

    def fetch_outside(self, url: str) -> str:
        return run(*inside(self.cluster, "outside", [str(BIN / "probe"), "get", url])).strip()


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Busy]:
    if reason := unusable():
        pytest.skip(reason)
    archive = tmp_path_factory.mktemp("images") / "probe.tar"
    make_image(archive, IMAGE, ("/probe",), {"/probe": BIN / "probe"})
    with running("ambit-test-c", nodes=2, dual_stack=True) as cluster:
        assert images.load(cluster, archive) == [IMAGE]
        kubectl(cluster, "apply", "-f", str(APPS))
        kubectl(cluster, "rollout", "status", "daemonset/web", "--timeout=60s")
        kubectl(cluster, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
        yield Busy(cluster)
