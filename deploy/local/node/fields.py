"""Fields of a pod that its containers may ask for (downward API): pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deploy.local.addresses import Pair

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


def value(pod: Mapping[str, Any], path: str, node: str, node_address: Pair, addresses: Pair) -> str:
    """What `fieldPath` stands for. Raises ValueError: local mode does not have it."""
    metadata = pod["metadata"]
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": node,
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.hostIP": node_address.v4,
        "status.hostIPs": ",".join(node_address.both()),
        "status.podIP": addresses.v4,
        "status.podIPs": ",".join(addresses.both()),
    }
    if path in known:
        return str(known[path])
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript is None:
        raise ValueError(
            f"takes its value from something that local mode does not have (fieldRef to {', '.join(known)}, labels and "
            f"annotations are known)"
        )
    return str((metadata.get(subscript[1]) or {}).get(subscript[2], ""))
