"""Reading Kubernetes objects: who they are, what they say of themselves, which labels select them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.store.interface import Key, Object


def namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))


def labels(obj: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = obj["metadata"].get("labels") or {}
    return found


def key(obj: Object) -> Key:
    return Key(obj["kind"], namespace(obj), obj["metadata"]["name"])


def uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid", ""))


def is_terminal(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_terminating(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def condition(obj: Object, kind: str) -> bool:
    """Whether a status condition is True."""
    conditions = obj.get("status", {}).get("conditions", ())
    return any(each.get("type") == kind and each.get("status") == "True" for each in conditions)


def condition_update(
    obj: Object, kind: str, holds: bool, reason: str, message: str, now: str
) -> list[dict[str, Any]] | None:
    """The object's conditions with this one set; None when it is so already."""
    wanted = {"type": kind, "status": "True" if holds else "False", "reason": reason, "message": message}
    conditions = [dict(each) for each in obj.get("status", {}).get("conditions", ())]
    before = next((each for each in conditions if each.get("type") == kind), None)
    if before is not None and wanted.items() <= before.items():
        return None
    others = [each for each in conditions if each is not before]
    return [*others, wanted | {"lastTransitionTime": now}]


def selects(selector: Mapping[str, Any] | None, found: Mapping[str, str]) -> bool:
    """A label selector (metav1.LabelSelector) on labels; an empty one selects everything."""
    selector = selector or {}
    if any(found.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(each, found) for each in selector.get("matchExpressions") or ())


def _expression(expression: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    name, values = expression.get("key", ""), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return found.get(name) in values
        case "NotIn":
            return found.get(name) not in values
        case "Exists":
            return name in found
        case "DoesNotExist":
            return name not in found
    return False
