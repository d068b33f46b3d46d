"""Every command of docs/kubernetes.md, in its order, on a real cluster; those of the README are among them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.images.build import CACHE, IMAGES
from tests.cluster import images
from tests.cluster.fixture import running
from tests.cluster.plan import BIN, Cluster

ROOT = Path(__file__).parents[2]
PROGRAMS = ("ambit", "helm", "kubectl", "python3")
BUILD = "deploy/images/build.py"


def commands(document: str) -> list[str]:
    lines = [line.strip() for line in (ROOT / document).read_text().splitlines() if line.startswith("    ")]
    return [re.split(r"\s{2,}#", line)[0] for line in lines if line.split()[:1] and line.split()[0] in PROGRAMS]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running("ambit-test-docs") as made:
        yield made


@pytest.mark.usefixtures("kubernetes")
def test_every_command_does_what_it_is_there_for(cluster: Cluster) -> None:
    told = [(command, run(command, cluster)) for command in commands("docs/kubernetes.md")]
    answers = [answer for command, answer in told if "curl" in command]
    assert len(answers) >= 2  # in plain text and in the mesh
    assert all("catalog" in answer and "sees" in answer for answer in answers)
    (workloads,) = [answer for command, answer in told if "workload" in command]
    assert all("HBONE" in line for line in workloads.splitlines() if "catalog" in line)


def test_the_readme_shows_no_other_commands() -> None:
    shown = [each for each in commands("README.md") if each.startswith(("helm", "kubectl"))]
    assert shown
    assert set(shown) <= set(commands("docs/kubernetes.md"))


def run(command: str, cluster: Cluster) -> str:
    """Its output. A reader of the page pushes images where this loads them."""
    words = shlex.split(command)
    program = {"ambit": (sys.executable, "-m", "cli"), "python3": (sys.executable,)}.get(words[0], words[:1])
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        (*program, *words[1:]), cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    if BUILD in words:
        for image in set(words) & set(IMAGES):
            images.load(cluster, CACHE / "archives" / f"{image}.tar")
    return done.stdout
