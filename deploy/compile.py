"""Compiles the byte path: `python -m deploy.compile`. Needs a C compiler and Python's headers; takes some minutes.

mypyc (part of mypy) turns typed Python into C extensions. What is compiled is what a round trip, a new connection or a
request runs through; values that are made once per change of the mesh stay as they are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from mesh.runtime.compiled import COPY, PACKAGES, ROOT, STAMP, fingerprint, usable

HOT = (
    "ebpf/contract.py",
    "ebpf/maps.py",
    "ebpf/node.py",
    "mesh/hbone/*.py",
    "mesh/identity/session.py",
    "mesh/model/balance.py",
    "mesh/model/address.py",  # without optional fields: mypyc forgets their types, which msgspec reads
    "mesh/model/index.py",
    "mesh/model/state.py",
    "mesh/policy/*.py",
    "mesh/runtime/style.py",
    "ztunnel/plan/*.py",
    "ztunnel/worker/*.py",
    "waypoint/*.py",
    "waypoint/exchange/*.py",
    "waypoint/http/*.py",
    "waypoint/plan/*.py",
    "waypoint/routing/*.py",
    "waypoint/serve/*.py",
    "waypoint/telemetry/*.py",
    "waypoint/tunnel/*.py",
)
# What mypyc cannot take, or what is not worth it.
COLD = (
    "__init__.py",
    "__main__.py",
    "main.py",
    "settings.py",
    "waypoint/config.py",
    "waypoint/process.py",
    "waypoint/supervisor.py",
    "waypoint/tcp.py",  # tests derive from it, which compiled classes do not allow
)
# One C file for each module: gcc takes twice as long for all in one.
BUILD = """
import sys
from mypyc.build import mypycify
from setuptools import setup
modules = mypycify(sys.argv[1:], opt_level="2", debug_level="0", multi_file=True)
setup(name="ambit-byte-path", packages=[], ext_modules=modules, script_args=["--quiet", "build_ext", "--inplace"])
"""


class CannotCompile(Exception):
    """The text says why."""


def compile_byte_path() -> None:
    """Makes the copy anew; an older one serves until it is complete. Raises CannotCompile."""
    work = COPY.with_name(f"compiled.{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        for package in filter(lambda each: (ROOT / each).is_dir(), PACKAGES):
            shutil.copytree(ROOT / package, work / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        made_from = fingerprint(work)
        _run_mypyc(work)
        shutil.rmtree(work / "build", ignore_errors=True)
        (work / STAMP).write_text(made_from)
        old = COPY.with_name(f"compiled.old.{os.getpid()}")
        if COPY.exists():
            COPY.rename(old)
        work.rename(COPY)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def hot_modules(root: Path) -> list[str]:
    """Paths relative to `root`."""
    found = {path.relative_to(root) for pattern in HOT for path in root.glob(pattern) if path.stat().st_size}
    return sorted(str(path) for path in found if path.name not in COLD and str(path) not in COLD)


def _run_mypyc(work: Path) -> None:
    flags = ["--config-file", str(ROOT / "pyproject.toml")]
    command = [sys.executable, "-c", BUILD, *flags, *hot_modules(work)]
    ran = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise CannotCompile((ran.stdout + ran.stderr).strip())


def main() -> int:
    if usable():
        return 0
    began = time.monotonic()
    print("compiling the byte path (two to four minutes, only after a change of it)", flush=True)
    try:
        compile_byte_path()
    except CannotCompile as error:
        print(f"cannot compile the byte path, workers run from source: {error}", file=sys.stderr)
        return 1
    print(f"compiled the byte path in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
