"""Where workers and waypoints find their hot modules compiled: a copy of the packages in which these are C extensions.

mypyc makes them from the same Python files (`python -m deploy.compile`), so there is one source and no other behaviour;
a round trip then costs a third less CPU, a request half. The copy carries the fingerprint of what it was made from:
after any change of the sources these are run again until the copy is made anew.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAMP = "fingerprint"
SWITCH = "AMBIT_COMPILED"  # in the environment: 0 for what shall run from source
PACKAGES = ("mesh", "ebpf", "ztunnel", "waypoint")  # those that are there: an image has what it needs
APART = Path("ztunnel/agent")  # runs from source: its changes do not count


def sources(root: Path = ROOT) -> list[Path]:
    """The Python files that may run from the copy, relative to `root`, in order."""
    found = (path.relative_to(root) for package in PACKAGES for path in (root / package).rglob("*.py"))
    return sorted(path for path in found if not path.is_relative_to(APART))


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
    """The environment for a process that may run from the copy, and what it runs from, in words."""
    if inherited.get(SWITCH) == "0":
        return dict(inherited), f"from source: {SWITCH}=0"
    if not usable(root):
        return dict(inherited), "from source: there is no compiled copy of it (python -m deploy.compile makes one)"
    path = [str(copy_of(root)), *filter(None, [inherited.get("PYTHONPATH")])]
    # Safe path: Python would look into the current directory first, which may well be the sources'.
    return {**inherited, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}, "compiled"
