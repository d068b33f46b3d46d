"""The difference between two versions of an object as a JSON merge patch (RFC 7386). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What turns `before` into `after`: lists as a whole, null for what has gone. Empty when nothing differs."""
    patch: dict[str, Any] = {name: None for name in before if after.get(name) is None and before[name] is not None}
    for name, value in after.items():
        old = before.get(name)
        if value is None or value == old:
            continue
        nested = isinstance(value, Mapping) and isinstance(old, Mapping)
        patch[name] = difference(old, value) if nested else value  # type: ignore[arg-type]
    return patch


def guarded(before: Mapping[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The same for exactly this version of the object: the server answers Conflict when there is another."""
    metadata = before["metadata"]
    identity = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]}
    return patch | {"metadata": (patch.get("metadata") or {}) | identity}
