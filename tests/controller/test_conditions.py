"""Problems as a condition: written when there are some, turned when they are gone, otherwise left out."""

from __future__ import annotations

from typing import Any

import msgspec

from controller.compile.problem import Problem
from controller.conditions import is_current, set_condition
from controller.store.interface import Key
from controller.store.shapes import Condition

PROBLEM = Problem(Key("Pod", "shop", "web"), "status.podIPs", "10.1.0.1 is taken")


def conditions(obj: dict[str, Any]) -> tuple[Condition, ...]:
    return msgspec.convert(obj.get("status", {}).get("conditions", []), tuple[Condition, ...])


def test_without_problems_nothing_is_written() -> None:
    assert is_current((), ())
    assert not is_current((), (PROBLEM,))


def test_a_problem_comes_and_goes() -> None:
    ready = {"type": "Ready", "status": "True"}
    obj: dict[str, Any] = {"status": {"conditions": [dict(ready)]}}
    set_condition(obj, (PROBLEM,), "then")
    assert obj["status"]["conditions"] == [
        ready,
        {
            "type": "ambit.io/Accepted",
            "status": "False",
            "reason": "Invalid",
            "message": "status.podIPs: 10.1.0.1 is taken",
            "lastTransitionTime": "then",
        },
    ]
    assert is_current(conditions(obj), (PROBLEM,))
    assert not is_current(conditions(obj), ())
    set_condition(obj, (), "later")
    assert obj["status"]["conditions"][1]["status"] == "True"
    assert obj["status"]["conditions"][1]["lastTransitionTime"] == "later"
    assert is_current(conditions(obj), ())


def test_another_problem_is_no_transition() -> None:
    obj: dict[str, Any] = {}
    set_condition(obj, (PROBLEM,), "then")
    set_condition(obj, (PROBLEM, PROBLEM), "later")
    (condition,) = obj["status"]["conditions"]
    assert condition["lastTransitionTime"] == "then"
    assert condition["message"].count("10.1.0.1 is taken") == 2
