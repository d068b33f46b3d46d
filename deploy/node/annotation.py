"""What a pod's annotations say of its place in the mesh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.store.interface import Key, NotFound, Object, Store
from mesh.model.enrolment import REDIRECTION, REDIRECTION_REASON

NOTHING: Mapping[str, str | None] = {REDIRECTION: None, REDIRECTION_REASON: None}


async def annotate(store: Store, pod: Object, values: Mapping[str, str | None]) -> Object | None:
    """None removes. Returns the pod as it is then; None: it has gone meanwhile, and needs no annotation.

    Raises StoreError."""
    metadata = pod["metadata"]

    def edit(obj: dict[str, Any]) -> None:
        if obj["metadata"]["uid"] != metadata["uid"]:
            return
        annotations = {**(obj["metadata"].get("annotations") or {}), **values}
        obj["metadata"]["annotations"] = {name: value for name, value in annotations.items() if value is not None}

    try:
        changed = await store.change(Key("Pod", metadata["namespace"], metadata["name"]), edit)
    except NotFound:
        return None
    return changed if changed["metadata"]["uid"] == metadata["uid"] else None


def annotated(pods: Iterable[Object], node: str) -> list[Object]:
    """The pods of a node that say something of their place in the mesh. Pure."""
    return [
        pod
        for pod in pods
        if pod["spec"].get("nodeName") == node and NOTHING.keys() & (pod["metadata"].get("annotations") or {}).keys()
    ]
