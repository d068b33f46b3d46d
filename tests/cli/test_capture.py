"""What the kernel says of pods that show as enrolled and are not captured."""

from __future__ import annotations

from typing import Any

import pytest

from cli.status import _capture_problems


def said(enrolled: int, inbound: int, idle: tuple[str, ...] = ()) -> list[str]:
    kernel: dict[str, Any] = {"enrolled": enrolled, "inbound": [f"u{n}" for n in range(inbound)], "idleHooks": idle}
    return list(_capture_problems("node1", kernel))


@pytest.mark.parametrize(("enrolled", "inbound"), [(0, 0), (3, 3), (4, 3)])
def test_all_is_well(enrolled: int, inbound: int) -> None:
    assert said(enrolled, inbound) == []


def test_a_lost_capture_is_a_problem() -> None:
    assert said(1, 3) == ["node1: of 3 pods in the mesh 2 are not captured: what they dial goes out in clear"]


def test_so_are_programs_that_are_gone() -> None:
    (problem,) = said(3, 3, ("connect4", "connect6"))
    assert "node1 captures nothing" in problem
    assert "connect4, connect6" in problem


def test_a_node_of_another_version_says_less() -> None:
    assert list(_capture_problems("node1", {"enrolled": 1, "inbound": ["u"]})) == []
