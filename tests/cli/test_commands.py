"""The `ambit` command itself: what it lists, what it loads, and what an interrupt leaves on the screen."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cli.app import ENTRIES, app, load
from tests.cli.ambit import ambit, two_nodes
from tests.cli.api_server import kubeconfig, serving


@pytest.mark.parametrize("name", ENTRIES)
def test_the_table_says_what_the_command_says(name: str) -> None:
    """The table may say less, never something else."""
    assert str(load(name).help).startswith(ENTRIES[name].help.rstrip("."))


def test_help_lists_the_commands_and_loads_none(tmp_path: Path) -> None:
    shown = ambit("--help", home=tmp_path)
    assert shown.returncode == 0
    assert all(name in shown.stdout for name, entry in ENTRIES.items() if not entry.hidden)
    program = "import sys\nfrom cli.main import main\ntry: main()\nfinally: print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True).stdout.split()
    assert "cli.app" in loaded
    assert not {"deploy.local", "kubernetes", "controller", "asyncio", "pyroute2"} & set(loaded)


def test_a_word_that_is_no_command(tmp_path: Path) -> None:
    done = ambit("statsu", home=tmp_path)
    assert done.returncode == 2
    assert "'status'" in done.stderr


def test_commands_can_be_completed() -> None:
    group = typer.main.get_command(app)
    assert group.list_commands(None) == list(ENTRIES)  # type: ignore[attr-defined, arg-type]


@pytest.mark.parametrize("module", ["typer.core", "cli.app", "cli.home", "urllib3", "kubernetes.client"])
def test_an_interrupt_while_modules_load_is_silent(module: str, tmp_path: Path) -> None:
    """Python tells on standard error which module it has loaded: then comes the interrupt."""
    cluster = two_nodes()
    cluster.silent = {"ambit-node-a", "ambit-node-b"}  # so that it is still there if the signal comes late
    with serving(cluster):
        config = kubeconfig(cluster, tmp_path / "config")
        command = [sys.executable, "-X", "importtime", "-m", "cli", "status", "--kubeconfig", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if line.rpartition("|")[2].strip() == module:
                process.send_signal(signal.SIGINT)
                break
        output, rest = process.communicate(timeout=30)
    words = [line for line in rest.splitlines() if not line.startswith("import time:")]
    assert words == []
    assert "Nothing" not in output
    assert process.returncode in (-signal.SIGINT, 130)


def test_an_interrupt_of_a_command_at_work(tmp_path: Path) -> None:
    cluster = two_nodes()
    cluster.silent = {"ambit-node-a", "ambit-node-b"}
    with serving(cluster):
        config = kubeconfig(cluster, tmp_path / "config")
        command = [sys.executable, "-m", "cli", "zc", "workload", "--kubeconfig", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert cluster.forwarding.wait(30)
        process.send_signal(signal.SIGINT)
        output, rest = process.communicate(timeout=30)
    assert (process.returncode, output, rest) == (130, "", "")
