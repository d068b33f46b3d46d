"""An object's problems as the condition that Kubernetes shows with it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controller.compile.problem import Problem
from controller.store.shapes import Condition

ACCEPTED = "ambit.io/Accepted"
KINDS_WITH_CONDITIONS = frozenset({"Pod", "Service"})


def is_current(conditions: Sequence[Condition], problems: Sequence[Problem]) -> bool:
    """Whether the conditions say so already. An object that never had a problem needs no condition."""
    present = next((each for each in conditions if each.type == ACCEPTED), None)
    if present is None:
        return not problems
    wanted = _condition(problems)
    return (present.status, present.message) == (wanted["status"], wanted["message"])


def set_condition(obj: dict[str, Any], problems: Sequence[Problem], now: str) -> None:
    """Edits the status; `now` (RFC 3339) is kept only when the condition turns."""
    conditions = obj.setdefault("status", {}).setdefault("conditions", [])
    wanted = _condition(problems)
    present = next((each for each in conditions if each.get("type") == ACCEPTED), None)
    if present is None:
        conditions.append({**wanted, "lastTransitionTime": now})
        return
    if present.get("status") != wanted["status"]:
        present["lastTransitionTime"] = now
    present.update(wanted)


def _condition(problems: Sequence[Problem]) -> dict[str, str]:
    if not problems:
        return {"type": ACCEPTED, "status": "True", "reason": "Accepted", "message": ""}
    message = "; ".join(f"{problem.field}: {problem.sentence}" for problem in problems)
    return {"type": ACCEPTED, "status": "False", "reason": "Invalid", "message": message}
