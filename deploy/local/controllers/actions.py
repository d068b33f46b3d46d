"""What a controller wants done, as values; and what it sees, as one consistent picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.store.interface import Key, Object


@dataclass(frozen=True, slots=True)
class Apply:
    """Create an object, or replace its labels, annotations, spec and the like."""

    object: Object


@dataclass(frozen=True, slots=True)
class Merge:
    """Set the fields that `fields` has, at any depth, and leave the others. Nothing happens if the object is gone or
    is another one by now (uid)."""

    key: Key
    uid: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SetStatus:
    """Set fields of the status and leave the others; as `Merge` does, but one level deep."""

    key: Key
    uid: str
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    key: Key


Action = Apply | Merge | SetStatus | Delete


@dataclass(frozen=True, slots=True)
class Picture:
    """All objects by kind name, as they are now."""

    objects: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)

    def of(self, kind: str) -> tuple[Object, ...]:
        return self.objects.get(kind, ())

    def names(self, kind: str) -> frozenset[tuple[str, str]]:
        """(namespace, name) of all objects of a kind."""
        return frozenset((namespace(each), each["metadata"]["name"]) for each in self.of(kind))


def picture(objects: Iterable[Object]) -> Picture:
    by_kind: dict[str, list[Object]] = {}
    for each in objects:
        by_kind.setdefault(each["kind"], []).append(each)
    return Picture({kind: tuple(found) for kind, found in by_kind.items()})


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
