"""Settings of the machine's kernel that kubelet changes for its own ends, and that `down` puts back."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.plan import BASE

# kubelet's container manager sets them at each start (pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables).
CHANGED = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)


def _saved() -> Path:
    return BASE / "machine.json"


def remember() -> None:
    """Once, before the first cluster."""
    if not _saved().exists():
        _saved().write_text(json.dumps({name: Path("/proc/sys", name).read_text().strip() for name in CHANGED}))


def restore() -> None:
    """After the last cluster."""
    if _saved().exists():
        for name, value in json.loads(_saved().read_text()).items():
            Path("/proc/sys", name).write_text(value)
        _saved().unlink()
