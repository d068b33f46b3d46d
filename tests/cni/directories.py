"""A node's CNI directories, as the installer's tests fill and read them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.cni.conflist import PLUGIN_TYPE
from deploy.cni.install import Installer

BRIDGE: dict[str, Any] = {"type": "bridge", "ipam": {"type": "host-local", "subnet": "10.0.0.0/24"}}
CONF = {"cniVersion": "0.3.1", "name": "cluster", **BRIDGE}


def conflist(**more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": "cluster", "plugins": [BRIDGE], **more}


def put(installer: Installer, name: str, document: Any) -> Path:
    """As careful installers do it."""
    path = installer.conf_dir / name
    new = path.with_name(path.name + ".new")
    new.write_text(document if isinstance(document, str) else json.dumps(document))
    new.replace(path)
    return path


def kinds(path: Path) -> list[str]:
    return [plugin["type"] for plugin in json.loads(path.read_text())["plugins"]]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def has_it(path: Path) -> Callable[[], bool]:
    def looked() -> bool:
        try:
            return kinds(path)[-1] == PLUGIN_TYPE
        except (FileNotFoundError, ValueError):
            return False

    return looked
