"""The chart, rendered by a real helm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.plan import BIN

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "ambit"
NAMESPACE = "mesh"
Object = dict[str, Any]


def helm() -> str | None:
    return shutil.which("helm") or (str(BIN / "helm") if (BIN / "helm").exists() else None)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    found = helm()
    assert found, "the tests of this directory are skipped without helm"
    return subprocess.run((found, *arguments), capture_output=True, text=True, check=False)


def template(*values: str) -> subprocess.CompletedProcess[str]:
    """With the CRDs, as an installation has them; of one Kubernetes, whichever this helm would expect by itself."""
    settings = [word for value in values for word in ("--set", value)]
    options = ("--namespace", NAMESPACE, "--kube-version", "1.34.0", "--include-crds")
    return run("template", "ambit", str(CHART), *options, *settings)


def text(*values: str) -> str:
    done = template(*values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(*values: str) -> list[Object]:
    return [each for each in yaml.safe_load_all(text(*values)) if each]


def one(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [each for each in objects if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def containers(pod: Object) -> dict[str, Object]:
    return {each["name"]: each for each in [*pod.get("initContainers", ()), *pod["containers"]]}


def environment(container: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container.get("env", ()) if "value" in each}
