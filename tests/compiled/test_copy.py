"""The compiled copy of the byte path: fits its sources, is what workers run, and gives way when the sources change."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.compile import hot_modules
from mesh.runtime.compiled import COPY, PACKAGES, ROOT, STAMP, copy_of, environment, fingerprint, usable

WHERE = "import mesh.hbone.reader, ztunnel.worker.main\nprint(mesh.hbone.reader.__file__)"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A tree of its own with a copy that fits."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    copy = copy_of(tmp_path)
    copy.mkdir(parents=True)
    (copy / STAMP).write_text(fingerprint(tmp_path))
    return tmp_path


def test_workers_import_extensions() -> None:
    if not usable():
        pytest.skip("the sources have changed since the last make setup")
    inherited, code = environment(os.environ)
    ran = subprocess.run([sys.executable, "-c", WHERE], env=inherited, cwd=ROOT, capture_output=True, text=True)
    assert code == "compiled"
    assert ran.stdout.strip().endswith(".so"), ran.stderr
    assert str(COPY) in ran.stdout


def test_all_hot_modules_are_compiled() -> None:
    if not usable():
        pytest.skip("the sources have changed since the last make setup")
    missing = [path for path in hot_modules(COPY) if not list((COPY / path).parent.glob(f"{Path(path).stem}.*.so"))]
    assert not missing


@pytest.mark.parametrize("path", hot_modules(ROOT), ids=str)
def test_no_slice_has_bounds_that_do_something(path: Path) -> None:
    """mypyc evaluates the bounds of a memoryview's slice twice: a relay sent the same bytes two times."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Slice):
            calls = [ast.unparse(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)]
            assert set(calls) <= {"len"}, f"{path}:{node.lineno}: {ast.unparse(node)}"


def test_a_changed_source_is_run_from_source(sources: Path) -> None:
    assert usable(sources)
    with (sources / "ztunnel" / "worker" / "tunnel.py").open("a") as file:
        file.write("\n# changed\n")
    inherited, code = environment({"PATH": "/bin"}, sources)
    assert code.startswith("from source")
    assert inherited == {"PATH": "/bin"}


def test_what_no_worker_runs_does_not_count(sources: Path) -> None:
    with (sources / "ztunnel" / "agent" / "agent.py").open("a") as file:
        file.write("\n# changed\n")
    assert usable(sources)


def test_it_can_be_switched_off(sources: Path) -> None:
    inherited, code = environment({"AMBIT_COMPILED": "0"}, sources)
    assert "PYTHONPATH" not in inherited
    assert code == "from source: AMBIT_COMPILED=0"
