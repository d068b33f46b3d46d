"""Problems as a condition: written when there are some, turned when they are gone, otherwise left out."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.compile.problem import Problem
from controller.conditions import is_current, set_condition
from controller.store.interface import Key
from controller.store.shapes import Condition

PROBLEM = Problem(Key("Pod", "shop", "web"), "status.podIPs", "10.1.0.1 is taken")


def conditions(obj: dict[str, Any]) -> tuple[Condition, ...]:
    return msgspec.convert(obj.get("status", {}).get("conditions", []), tuple[Condition, ...])


def test_without_problems_nothing_is_written() -> None:
    assert is_current("Pod", (), ())
    assert not is_current("Pod", (), (PROBLEM,))


def test_a_problem_comes_and_goes() -> None:
    ready = {"type": "Ready", "status": "True"}
    obj: dict[str, Any] = {"status": {"conditions": [dict(ready)]}}
    set_condition(obj, "Pod", (PROBLEM,), "then")
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
    assert is_current("Pod", conditions(obj), (PROBLEM,))
    assert not is_current("Pod", conditions(obj), ())
    set_condition(obj, "Pod", (), "later")
    assert obj["status"]["conditions"][1]["status"] == "True"
    assert obj["status"]["conditions"][1]["lastTransitionTime"] == "later"
    assert is_current("Pod", conditions(obj), ())


def test_another_problem_is_no_transition() -> None:
    obj: dict[str, Any] = {}
    set_condition(obj, "Pod", (PROBLEM,), "then")
    set_condition(obj, "Pod", (PROBLEM, PROBLEM), "later")
    (condition,) = obj["status"]["conditions"]
    assert condition["lastTransitionTime"] == "then"
    assert condition["message"].count("10.1.0.1 is taken") == 2


POLICY = Key("AuthorizationPolicy", "shop", "web")


def test_a_policy_in_force_says_so() -> None:
    obj: dict[str, Any] = {}
    assert not is_current(POLICY.kind, (), ())
    set_condition(obj, POLICY.kind, (), "then")
    (condition,) = obj["status"]["conditions"]
    assert (condition["type"], condition["status"], condition["reason"]) == ("ZtunnelAccepted", "True", "Accepted")
    assert is_current(POLICY.kind, conditions(obj), ())


@pytest.mark.parametrize(
    ("reasons", "reason"),
    [
        (("UnsupportedValue",), "UnsupportedValue"),
        (("UnsupportedValue", "PartiallyInvalid"), "PartiallyInvalid"),
        (("PartiallyInvalid", "Invalid"), "Invalid"),
    ],
)
def test_the_gravest_reason_of_a_policy_is_its_reason(reasons: tuple[str, ...], reason: str) -> None:
    obj: dict[str, Any] = {}
    problems = [Problem(POLICY, f"spec.rules[{n}]", f"sentence {n}", each) for n, each in enumerate(reasons)]
    set_condition(obj, POLICY.kind, problems, "then")
    (condition,) = obj["status"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", reason)
    assert all(f"spec.rules[{n}]: sentence {n}" in condition["message"] for n in range(len(reasons)))
