"""What an object becomes when a manifest is applied or an edit is written: Kubernetes' rules. Pure.

Applying is kubectl's three-way merge (kubectl apply, declarative management): what the manifest says is set; what an
earlier manifest said and this one does not is removed; what others wrote (an allocated clusterIP, a label set by hand,
the redirection annotation) stays.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from controller.store.interface import Conflict, Key, Object, StoreError

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

# Kept by the store, never taken from a manifest.
_SYSTEM_METADATA = frozenset({"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"})
_ORDER = ("apiVersion", "kind", "metadata", "spec", "status")


def applied(current: Object | None, manifest: Object) -> dict[str, Any]:
    """`current` (None: nothing yet) after `manifest`; the status stays. Raises Conflict."""
    version = manifest["metadata"].get("resourceVersion")
    if current is not None and version and version != current["metadata"].get("resourceVersion"):
        raise Conflict(f"{describe(manifest)} has changed since resourceVersion {version} was read")
    wanted: dict[str, Any] = plain(manifest)
    wanted.pop("status", None)
    annotations = wanted["metadata"].get("annotations", {})
    annotations.pop(LAST_APPLIED, None)
    for name in _SYSTEM_METADATA:
        wanted["metadata"].pop(name, None)
    record = json.dumps(wanted, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    result: dict[str, Any] = three_way(_last_applied(current), plain(current or {}), wanted)
    result["metadata"].setdefault("annotations", {})[LAST_APPLIED] = record
    return result


def three_way(last: Any, current: Any, wanted: Any) -> Any:
    """Lists and scalars are replaced as a whole (RFC 7386). A mapping that the manifest no longer names loses only what
    the manifest had put there: kubectl removes all of it, and with it the labels that others have set.
    """
    if not isinstance(wanted, dict) or not isinstance(current, dict):
        return wanted
    last = last if isinstance(last, dict) else {}
    result = {}
    for name, value in current.items():
        if name in wanted:
            result[name] = three_way(last.get(name), value, wanted[name])
        elif name not in last:
            result[name] = value
        elif isinstance(value, dict) and isinstance(last[name], dict) and (rest := three_way(last[name], value, {})):
            result[name] = rest
    return result | {name: value for name, value in wanted.items() if name not in current}


def _last_applied(current: Object | None) -> Any:
    text = (current or {}).get("metadata", {}).get("annotations", {}).get(LAST_APPLIED)
    try:
        return json.loads(text) if text else {}
    except ValueError:
        return {}  # edited by hand: then nothing is known to be removed


def edited(before: Object, after: dict[str, Any], status: bool) -> dict[str, Any]:
    """What an edit is allowed to have changed: only the status, or all but the status and the name."""
    if status:
        kept = {name: value for name, value in before.items() if name != "status"}
        return kept | ({"status": after["status"]} if after.get("status") is not None else {})
    for path in (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")):
        if _get(before, path) != _get(after, path):
            raise StoreError(f"{describe(before)}: {'.'.join(path)} cannot be changed")
    result = {name: value for name, value in after.items() if name != "status"}
    return result | ({"status": before["status"]} if "status" in before else {})


def runs_on(obj: Object) -> bool:
    """Whether a deletion has to wait: a pod that has a node ends there first, and who ended it deletes it again."""
    if obj["kind"] != "Pod" or not obj["spec"].get("nodeName") or "deletionTimestamp" in obj["metadata"]:
        return False
    return (obj.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def ending(pod: Object, now: str) -> dict[str, Any]:
    """A pod that is to end: still there, so that the mesh serves it to its end, and no endpoint any more."""
    result: dict[str, Any] = plain(pod)
    result["metadata"]["deletionTimestamp"] = now
    result["metadata"]["deletionGracePeriodSeconds"] = result["spec"].get("terminationGracePeriodSeconds", 30)
    return result


def stamped(before: Object | None, after: dict[str, Any], now: str, version: int, uid: str) -> dict[str, Any]:
    """`after` with the metadata that the store keeps, in the order in which people read it."""
    old = before["metadata"] if before is not None else {}
    metadata = {name: value for name, value in after["metadata"].items() if name not in _SYSTEM_METADATA}
    metadata["uid"] = old.get("uid") or uid
    metadata["resourceVersion"] = str(version)
    metadata["creationTimestamp"] = old.get("creationTimestamp") or now
    changed = before is None or _content(before) != _content(after)
    metadata["generation"] = int(old.get("generation", 0)) + changed
    result = after | {"metadata": metadata}
    return {name: result[name] for name in sorted(result, key=lambda name: _ORDER.index(name) if name in _ORDER else 3)}


def _content(obj: Object) -> dict[str, Any]:
    """What a generation counts: all but metadata and status."""
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def plain(value: Any) -> Any:
    """A deep copy made of dicts and lists."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def describe(obj: Object) -> str:
    return str(Key(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))


def _get(obj: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = obj
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
