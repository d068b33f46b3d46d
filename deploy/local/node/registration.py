"""The node as an object: registered when its process starts, with what the kubelet would say of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controller.store.interface import Key, Store
from deploy.local.addresses import NodeAddresses


def manifest(node: NodeAddresses) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": labels},
        "spec": {"podCIDR": str(node.pods_v4), "podCIDRs": [str(node.pods_v4), str(node.pods_v6)]},
    }


async def register(store: Store, node: NodeAddresses) -> None:
    """Labels that people have put on the node stay. Raises StoreError."""
    await store.apply(manifest(node))


async def set_ready(store: Store, node: NodeAddresses, ready: bool, reason: str, message: str) -> None:
    """Raises StoreError."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Ready", "status": "True" if ready else "False", "reason": reason, "message": message}

    def edit(obj: dict[str, Any]) -> None:
        addresses = [{"type": "InternalIP", "address": ip} for ip in node.address.both()]
        addresses.append({"type": "Hostname", "address": node.name})
        conditions = [condition | {"lastTransitionTime": now}]
        obj["status"] = {**obj.get("status", {}), "addresses": addresses, "conditions": conditions}

    await store.change_status(Key("Node", "", node.name), edit)
