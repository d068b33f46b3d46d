"""A real API server takes everything that the chart renders, field by field."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from controller.store.kubernetes.api import ApiServer
from tests.cluster.plan import BIN
from tests.helm import chart
from tests.store import apiserver

# Every value that adds an object or a field.
EVERYTHING = (
    "networkPolicy=true",
    "controller.replicas=2",
    "controller.podDisruptionBudget=true",
    "controller.podAnnotations.team=mesh",
    "controller.tolerations[0].operator=Exists",
    "controller.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]."
    "matchExpressions[0].key=disk,controller.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution."
    "nodeSelectorTerms[0].matchExpressions[0].operator=Exists",
    "images.pullSecrets={one,two}",
    "mesh.network=east",
    "node.paths.cgroup=/sys/fs/cgroup/kubepods",
    "node.podAnnotations.team=mesh",
    "node.resources.ztunnel.limits.memory=1Gi",
    "node.maxUnavailable=10%",
    "uninstall.removeLabels=false",
)


def kubectl() -> str | None:
    return shutil.which("kubectl") or (str(BIN / "kubectl") if (BIN / "kubectl").exists() else None)


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if reason := apiserver.missing() or ("" if kubectl() else "no kubectl"):
        pytest.skip(reason)
    server = apiserver.Server(tmp_path_factory.mktemp("apiserver"))
    try:
        server.start()
        make_namespace(server.api())
        yield server.kubeconfig()
    finally:
        server.close()


def make_namespace(api: ApiServer) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chart.NAMESPACE}}
    api.create("/api/v1/namespaces", namespace)


def dry_run(kubeconfig: Path, manifest: str) -> list[str]:
    """What kubectl says of each object."""
    program = kubectl()
    assert program
    command = (program, "--kubeconfig", str(kubeconfig), "apply", "--dry-run=server", "--validate=strict", "-f", "-")
    done = subprocess.run(command, input=manifest, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("values", [(), EVERYTHING], ids=["defaults", "everything"])
def test_a_dry_run_takes_every_object(kubeconfig: Path, values: tuple[str, ...]) -> None:
    assert len(dry_run(kubeconfig, chart.text(*values))) == len(chart.render(*values))


def test_the_pods_that_clean_up_are_taken_too(kubeconfig: Path) -> None:
    for text in chart.one(chart.render(), "ConfigMap", "ambit-uninstall")["data"].values():
        pod = yaml.safe_load(text)
        pod["metadata"] |= {"name": "cleaner", "namespace": chart.NAMESPACE}
        assert dry_run(kubeconfig, yaml.safe_dump(pod)) == ["pod/cleaner created (server dry run)"]


def test_helm_renders_it_without_being_told_of_a_cluster() -> None:
    """As `helm template | kubectl apply --dry-run=server` is typed: a helm knows which Kubernetes it was made for."""
    done = chart.run("template", "ambit", str(chart.CHART), "--namespace", chart.NAMESPACE)
    assert done.returncode == 0, done.stderr
