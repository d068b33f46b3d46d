"""The credential of a node's ztunnel: a file that is always there and always valid for a while."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from controller.authority.errors import AuthorityError
from controller.authority.tokens import issue_node_token

log = logging.getLogger("tokens")

LIFETIME = 3600.0  # seconds; the shortest that Kubernetes projects by default
ROTATION = LIFETIME * 0.8  # the kubelet's rule
RETRY = 5.0


def write(key: Path, node: str, path: Path) -> None:
    """Readers see the old token or the new one, never a part of it. Raises OSError, AuthorityError."""
    temporary = path.with_name(f".{path.name}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(issue_node_token(key, node, LIFETIME))
    temporary.rename(path)


async def rotate(key: Path, node: str, path: Path) -> None:
    """Until cancelled. The first token is the caller's to write."""
    pause = ROTATION
    while True:
        await asyncio.sleep(pause)
        try:
            await asyncio.to_thread(write, key, node, path)
            pause = ROTATION
        except (OSError, AuthorityError) as error:
            log.error("the node's token cannot be renewed: %s", error)
            pause = RETRY
