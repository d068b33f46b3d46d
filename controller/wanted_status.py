"""Brings the status of an object to what is wanted, as the Kubernetes API's conventions have it. Pure.

A condition's lastTransitionTime changes only with its status; what other controllers wrote stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from controller.compile.gateways import CONTROLLER
from controller.compile.wanted import NOTHING, Wanted, WantedListener, WantedParent, WantedStatus

_LONGEST = 32768  # of a message: the API's own limit (k8s.io/apimachinery meta/v1 Condition)
_DEFAULTS = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}  # of a parentRef

Status = dict[str, Any]


def is_current(status: Any, generation: int, wanted: WantedStatus) -> bool:
    """Whether a status says so already; `generation` is 0 for kinds that do not count theirs."""
    if wanted == NOTHING:
        return True
    after = deepcopy(status) if isinstance(status, dict) else {}
    _bring(after, generation, wanted, "")
    return bool(after == (status or {}))


def bring(obj: dict[str, Any], wanted: WantedStatus, now: str) -> None:
    """Edits the object's status; `now` is RFC 3339."""
    generation = obj["metadata"].get("generation", 0) if obj["kind"] != "Service" else 0
    status = obj.get("status")
    obj["status"] = status if isinstance(status, dict) else {}
    _bring(obj["status"], generation, wanted, now)


def _bring(status: Status, generation: int, wanted: WantedStatus, now: str) -> None:
    if wanted.conditions or wanted.dropped:
        kept = [each for each in status.get("conditions") or [] if each.get("type") not in wanted.dropped]
        if kept or wanted.conditions or "conditions" in status:
            status["conditions"] = _conditions(kept, wanted.conditions, generation, now)
    if wanted.parents is not None:
        status["parents"] = _parents(status.get("parents") or [], wanted.parents, generation, now)
    if wanted.listeners is not None:
        status["listeners"] = _listeners(status.get("listeners") or [], wanted.listeners, generation, now)
    if wanted.addresses is not None:
        status["addresses"] = [{"type": type_, "value": value} for type_, value in wanted.addresses]


def _conditions(present: Iterable[Status], wanted: Iterable[Wanted], generation: int, now: str) -> list[Status]:
    result = list(present)
    for each in wanted:
        new = _condition(each, generation)
        found = next((old for old in result if old.get("type") == each.type), None)
        if found is None:
            result.append({**new, "lastTransitionTime": now})
        else:
            if found.get("status") != new["status"]:
                found["lastTransitionTime"] = now
            found.update(new)
    return result


def _condition(wanted: Wanted, generation: int) -> Status:
    text = {"type": wanted.type, "status": str(wanted.status), "reason": wanted.reason}
    observed = {"observedGeneration": generation} if generation else {}
    return {**text, "message": wanted.message[:_LONGEST], **observed}


def _parents(present: Iterable[Status], wanted: Iterable[WantedParent], generation: int, now: str) -> list[Status]:
    """Ours are one for each parentRef; entries of other controllers stay as and where they are."""
    ours = {_identity(dict(each.reference)): each for each in wanted}
    result = []
    for each in present:
        if each.get("controllerName") != CONTROLLER:
            result.append(each)
        elif (found := ours.pop(_identity(each.get("parentRef") or {}), None)) is not None:
            result.append(_parent(found, each.get("conditions") or [], generation, now))
    return [*result, *(_parent(each, [], generation, now) for each in ours.values())]


def _parent(wanted: WantedParent, present: Iterable[Status], generation: int, now: str) -> Status:
    kept = [old for old in present if any(old.get("type") == new.type for new in wanted.conditions)]
    conditions = _conditions(kept, wanted.conditions, generation, now)
    return {"parentRef": dict(wanted.reference), "controllerName": CONTROLLER, "conditions": conditions}


def _identity(reference: Mapping[str, Any]) -> frozenset[tuple[str, Any]]:
    return frozenset({**_DEFAULTS, **reference}.items())


def _listeners(present: Iterable[Status], wanted: Iterable[WantedListener], generation: int, now: str) -> list[Status]:
    before = {each.get("name"): each.get("conditions") or [] for each in present}
    return [
        {
            "name": each.name,
            "attachedRoutes": 0,  # routes are attached to the Services that use the waypoint
            "supportedKinds": [],
            "conditions": _conditions(before.get(each.name, []), each.conditions, generation, now),
        }
        for each in wanted
    ]
