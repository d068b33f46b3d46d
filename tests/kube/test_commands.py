"""`ambit uninstall`, `check`, `install` and `upgrade` as a user types them, with a pod in the mesh meanwhile."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.plan import BIN
from tests.kube import artifacts, pods
from tests.kube.installed import NAMESPACE, KubeMesh, install, until

HELM = ("--helm", str(BIN / "helm"))
NOT_THERE = "no-such-image"


@pytest.fixture
def removed(mesh: KubeMesh) -> Iterator[subprocess.CompletedProcess[str]]:
    """What `ambit uninstall` says; afterwards the release is as it was."""
    try:
        yield mesh.ambit("uninstall", *HELM)
    finally:
        install(mesh.cluster, mesh.tag)


def tags(tag: str) -> tuple[str, str]:
    return "--set", ",".join(f"images.{image}.tag={tag}" for image in artifacts.IMAGES)


def test_a_release_comes_and_goes(mesh: KubeMesh, removed: subprocess.CompletedProcess[str]) -> None:
    assert removed.returncode == 0, removed.stderr
    assert ours(mesh) == []
    checked = {each["name"]: each for each in json.loads(mesh.ambit("check", "-o", "json").stdout)}
    assert "failed" not in {each["status"] for each in checked.values()}
    assert "node" in checked["cgroups"]["found"]  # kubelets have told: nothing of Ambit runs here
    done = mesh.ambit("install", *HELM, *tags(mesh.tag))
    assert done.returncode == 0, done.stderr
    again = mesh.ambit("install", *HELM)
    assert (again.returncode, "ambit upgrade" in again.stderr) == (1, True)
    wrong = mesh.ambit("upgrade", *HELM, "--set", "node.worker=2")
    assert (wrong.returncode, "worker" in wrong.stderr) == (1, True)
    done = mesh.ambit("upgrade", *HELM, "--set", "node.podAnnotations.test=upgraded")
    assert done.returncode == 0, done.stderr
    found = mesh.get("pods", "-n", NAMESPACE, "-l", "app=ambit-node")["items"]
    assert {each["metadata"]["annotations"].get("test") for each in found} == {"upgraded"}
    with mesh.namespace("installed", meshed=True) as namespace:
        mesh.apply(pods.manifest(pods.idle(namespace, "new")))
        mesh.wait_ready(namespace)
        mesh.wait_redirected(namespace)


def test_one_that_never_ran_says_why_and_goes_all_the_same(
    mesh: KubeMesh, removed: subprocess.CompletedProcess[str]
) -> None:
    assert removed.returncode == 0, removed.stderr
    failed = mesh.ambit("install", *HELM, *tags(NOT_THERE), "--timeout", "20")
    assert failed.returncode == 1
    assert NOT_THERE in failed.stderr
    stuck = mesh.ambit("uninstall", *HELM, "--timeout", "20")
    assert (stuck.returncode, "--no-hooks" in stuck.stderr) == (1, True)
    gone = mesh.ambit("uninstall", *HELM, "--no-hooks")
    assert gone.returncode == 0, gone.stderr
    until(lambda: ours(mesh) == [], "nothing of the attempt is left", 60)


def ours(mesh: KubeMesh) -> list[str]:
    """Objects of Ambit, its namespace and CRDs aside, events not counted."""
    inside = mesh.kubectl("get", "all,configmaps,secrets,leases,roles,rolebindings", "-n", NAMESPACE, "-o", "name")
    everywhere = mesh.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
    return [name for name in (inside + everywhere).split() if "ambit" in name]
