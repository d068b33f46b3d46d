"""The commands as a user types them, where no cluster is needed to answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.install.commands import chosen

ROOT = Path(__file__).parents[2]


def ambit(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "cli", *words]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["install", "upgrade", "uninstall", "check"])
def test_every_command_has_help(command: str) -> None:
    done = ambit(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "--context" in done.stdout


@pytest.mark.parametrize("command", ["install", "upgrade", "uninstall"])
def test_a_missing_helm_is_one_sentence(command: str) -> None:
    done = ambit(command, "--helm", "/nonexistent/helm")
    assert done.returncode == 1
    assert done.stderr.startswith("ambit: there is no /nonexistent/helm")
    assert "--helm" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_chart_is_one_sentence() -> None:
    done = ambit("install", "--chart", "/nonexistent")
    assert done.returncode == 1
    assert "no chart at /nonexistent" in done.stderr


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    config = tmp_path / "config"
    cluster = {"server": "https://127.0.0.1:1"}
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            }
        )
    )
    done = ambit("check", "--kubeconfig", str(config))
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.root
def test_this_machine_is_checked_without_a_cluster() -> None:
    done = ambit("check", "--local", "-o", "json")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert found["root privilege"]["status"] == "ok"
    assert done.returncode == (1 if any(each["status"] == "failed" for each in found.values()) else 0)
    assert all(each["remedy"] for each in found.values() if each["status"] != "ok")


def test_values_are_passed_to_helm_in_its_own_words() -> None:
    assert chosen(["a=1", "b=2"], [Path("x.yaml")]) == ["--values", "x.yaml", "--set", "a=1", "--set", "b=2"]
