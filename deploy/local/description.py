"""What a local mesh consists of, in a file: written before anything is made, so that everything can be found again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from deploy.local.addresses import NodeAddresses, node_addresses
from deploy.local.paths import Instance


def write(instance: Instance, count: int) -> None:
    """Raises OSError."""
    instance.runtime.mkdir(parents=True, exist_ok=True)
    temporary = instance.description.with_name(".mesh.json")
    temporary.write_text(json.dumps({"nodes": count}))
    temporary.rename(instance.description)


def nodes(instance: Instance) -> Sequence[NodeAddresses]:
    """Empty when there is no mesh, not even a half-made one."""
    try:
        count = int(json.loads(instance.description.read_text())["nodes"])
    except (OSError, ValueError, KeyError):
        return ()
    return [node_addresses(index) for index in range(1, count + 1)]


def node(name: str) -> tuple[Instance, NodeAddresses]:
    """A node of the current instance. Raises LookupError."""
    instance = Instance.current()
    for each in nodes(instance):
        if each.name == name:
            return instance, each
    raise LookupError(f"the mesh {instance.name} has no node {name}: {instance.description} does not name it")
