"""`ambit check` against a real API server: what stands in the way is found by what the server says, with a remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store import apiserver

ROOT = Path(__file__).parents[2]
IMAGE = {"name": "main", "image": "none"}
Checks = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apiserver.Server]:
    if reason := apiserver.missing():
        pytest.skip(reason)
    made = apiserver.Server(tmp_path_factory.mktemp("apiserver"))
    try:
        made.start()
        yield made
    finally:
        made.close()


def check(server: apiserver.Server, *words: str, token: str = apiserver.ADMIN) -> subprocess.CompletedProcess[str]:
    options = ("--kubeconfig", str(server.kubeconfig(token)))
    command = (sys.executable, "-m", "cli", "check", *words, *options)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_what_is_in_the_way_is_found_and_each_has_a_remedy(server: apiserver.Server) -> None:
    api = server.api()
    api.create("/api/v1/nodes", node("new", "6.12.3", "containerd://2.0.0"))
    api.create("/api/v1/nodes", node("old", "5.4.0-200-generic", "docker://20.10"))
    namespace("istio-system", api, {})
    namespace("ambit-system", api, {"pod-security.kubernetes.io/enforce": "restricted"})
    api.create("/apis/apps/v1/namespaces/istio-system/daemonsets", daemon_set("istio-cni-node"))
    done = check(server, "-o", "json")
    assert done.returncode == 1
    found = [each for each in json.loads(done.stdout) if each["status"] != "ok"]
    told = {(each["name"], each["status"], each["found"]) for each in found}
    assert ("another mesh", "failed", "Istio ambient (istio-system/istio-cni-node)") in told
    assert ("node old", "failed", "kernel 5.4.0-200-generic") in told
    assert ("node old", "warning", "container runtime docker://20.10") in told
    assert ("pod security", "failed", "namespace ambit-system enforces 'restricted'") in told
    assert ("Gateway API", "warning", "no gatewayclasses, gateways, httproutes") in told
    assert not [each for each in found if each["name"] == "node new" and each["status"] == "failed"]
    assert all(each["remedy"] for each in found)
    shown = check(server).stdout
    assert all(each["remedy"] in shown for each in found)


def namespace(name: str, api: Any, labels: dict[str, str]) -> None:
    metadata = {"name": name, "labels": labels}
    api.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def node(name: str, kernel: str, runtime: str) -> Checks:
    info = {"kernelVersion": kernel, "containerRuntimeVersion": runtime, "operatingSystem": "linux"}
    info |= dict.fromkeys(("architecture", "bootID", "kubeProxyVersion", "kubeletVersion", "machineID", "osImage"), "x")
    info |= {"systemUUID": "x"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"nodeInfo": info}}


def daemon_set(name: str) -> Checks:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [IMAGE]}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": name}, "spec": spec}
