"""Where workers find the byte path compiled: a copy of the packages in which hot modules are C extensions.

mypyc makes them from the same Python files (`python -m deploy.compile`), so there is one source and no other behaviour;
a round trip then costs a third less CPU. The copy carries the fingerprint of what it was made from: after any change of
the sources workers run from these again until the copy is made anew.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAMP = "fingerprint"
SWITCH = "AMBIT_COMPILED"  # in the agent's environment: 0 for workers that run from source
PACKAGES = ("mesh", "ebpf", "ztunnel")
# These packages' parts that no worker imports: their changes do not count.
APART = (Path("mesh/wire"), Path("mesh/xds"), Path("ztunnel/agent"))


def sources(root: Path = ROOT) -> list[Path]:
    """The Python files that a worker may run, relative to `root`, in order."""
    found = (path.relative_to(root) for package in PACKAGES for path in (root / package).rglob("*.py"))
    return sorted(path for path in found if not any(path.is_relative_to(part) for part in APART))


def fingerprint(root: Path = ROOT) -> str:
    """Of the sources and of the interpreter that extensions fit to."""
    total = hashlib.sha256(sys.version.encode())
    for path in sources(root):
        total.update(str(path).encode() + b"\0" + (root / path).read_bytes() + b"\0")
    return total.hexdigest()


def copy_of(root: Path) -> Path:
    return root / "build" / "compiled"


COPY = copy_of(ROOT)


def usable(root: Path = ROOT) -> bool:
    """Whether there is a compiled copy that was made from just these sources."""
    try:
        return (copy_of(root) / STAMP).read_text() == fingerprint(root)
    except OSError:
        return False


def environment(inherited: Mapping[str, str], root: Path = ROOT) -> tuple[dict[str, str], str]:
    """The environment for a worker, and what it runs from, in words."""
    if inherited.get(SWITCH) == "0":
        return dict(inherited), f"from source: {SWITCH}=0"
    if not usable(root):
        return dict(inherited), "from source: there is no compiled copy of it (python -m deploy.compile makes one)"
    path = [str(copy_of(root)), *filter(None, [inherited.get("PYTHONPATH")])]
    # Safe path: Python would look into the current directory first, which may well be the sources'.
    return {**inherited, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}, "compiled"
