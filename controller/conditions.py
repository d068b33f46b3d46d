"""An object's problems as the condition that Kubernetes shows with it. Pure.

A policy's condition has Istio's name and reasons (pilot/pkg/model/conditions.go) and is always there: that a policy is
in force is worth knowing. It is False whenever ztunnel enforces anything else than what is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.compile.problem import Problem
from controller.store.shapes import Condition

ACCEPTED = "ambit.io/Accepted"
ZTUNNEL_ACCEPTED = "ZtunnelAccepted"

_TYPES = {"AuthorizationPolicy": ZTUNNEL_ACCEPTED}
_ALWAYS = frozenset(_TYPES)
_LONGEST = 32768  # of a message: the API's own limit (k8s.io/apimachinery meta/v1 Condition)
_GRAVEST = ("Invalid", "PartiallyInvalid", "UnsupportedValue")  # which reason stands for several


def is_current(kind: str, conditions: Sequence[Condition], problems: Sequence[Problem]) -> bool:
    """Whether the conditions say so already. But for policies, what never had a problem needs no condition."""
    wanted = _condition(kind, problems)
    present = next((each for each in conditions if each.type == wanted["type"]), None)
    if present is None:
        return not problems and kind not in _ALWAYS
    return (present.status, present.message) == (wanted["status"], wanted["message"])


def set_condition(obj: dict[str, Any], kind: str, problems: Sequence[Problem], now: str) -> None:
    """Edits the status; `now` (RFC 3339) is kept only when the condition turns."""
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    wanted = _condition(kind, problems)
    present = next((each for each in conditions if each.get("type") == wanted["type"]), None)
    if present is None:
        conditions.append({**wanted, "lastTransitionTime": now})
        return
    if present.get("status") != wanted["status"]:
        present["lastTransitionTime"] = now
    present.update(wanted)


def _condition(kind: str, problems: Sequence[Problem]) -> dict[str, str]:
    name = _TYPES.get(kind, ACCEPTED)
    if not problems:
        return {"type": name, "status": "True", "reason": "Accepted", "message": ""}
    message = "; ".join(f"{problem.field}: {problem.sentence}" for problem in problems)
    return {"type": name, "status": "False", "reason": _reason(problems), "message": message[:_LONGEST]}


def _reason(problems: Sequence[Problem]) -> str:
    reasons = {problem.reason for problem in problems}
    return next((reason for reason in _GRAVEST if reason in reasons), min(reasons))
