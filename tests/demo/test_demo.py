"""`make demo-kubernetes` as a user runs it: all is proved, also after one that was killed, and nothing is left."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cli.demo.kubernetes.__main__ import NAME
from tests.cluster import record
from tests.cluster.plan import state_directory
from tests.scenarios.home import until

ROOT = Path(__file__).parents[2]
DEMO = (sys.executable, "-m", "cli.demo.kubernetes")


@pytest.mark.usefixtures("kubernetes")
def test_all_is_proved_after_one_that_was_killed() -> None:
    with subprocess.Popen(DEMO, cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout
        assert any("2. A small shop" in line or "deploy/images/build.py" in line for line in killed.stdout)
        killed.send_signal(signal.SIGKILL)
    assert record.load(NAME) is not None
    done = subprocess.run(DEMO, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"(\d+) of \1 proved", done.stdout)
    assert record.load(NAME) is None
    assert not state_directory(NAME).exists()


@pytest.mark.usefixtures("kubernetes")
def test_an_interrupted_one_says_so_and_leaves_nothing() -> None:
    mark = f"AMBIT_TEST_DEMO={secrets.token_hex(8)}"
    environment = dict([*os.environ.items(), mark.split("=")])
    with subprocess.Popen(DEMO, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout
        assert any("deploy/images/build.py" in line for line in demo.stdout)  # the cluster is up
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
    assert demo.returncode == 1
    assert "interrupted" in rest
    assert record.load(NAME) is None
    until(lambda: not descendants(mark), "all that it started has ended")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("kubernetes")
def test_one_that_is_interrupted_while_it_compiles_ends_in_a_sentence(tmp_path: Path, number: int) -> None:
    """Nothing is cached there: as on a machine that has never seen it."""
    environment = os.environ | {"AMBIT_CLUSTER_DIR": str(tmp_path)}
    options = {"cwd": ROOT, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(DEMO, **options) as demo:  # type: ignore[call-overload]
        assert any("compiling" in line for line in demo.stdout)
        demo.send_signal(number)
        rest = demo.stdout.read()
    assert demo.returncode == 130
    assert "interrupted" in rest
    assert "Traceback" not in rest
    until(lambda: not descendants(str(tmp_path)), "the compiler has ended")


def descendants(mark: str) -> list[int]:
    """Processes that have the mark in the environment with which they were started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if mark.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
    return found
