"""The gate when the watches lag: what the API server says now counts, as far as it can be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.store.interface import NotFound, Object, StoreError
from deploy.node.admission import Refused, Request
from deploy.node.gate import Gate
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE, Enrolment

REQUEST = Request("ADD", "shop", "web", "uid-1", "/run/netns/web", "box")
POD = {"metadata": {"namespace": "shop", "name": "web", "uid": "uid-1"}, "spec": {"nodeName": "node1"}}


def namespace(labelled: bool) -> Object:
    return {"metadata": {"name": "shop", "labels": {DATAPLANE_MODE: AMBIENT} if labelled else {}}}


class Node:
    """Of the agent, the store, the mirror and the networks what the gate uses: the mirror hears of the label after so
    many questions of the API server, which answers as it is told."""

    def __init__(self, answer: Callable[[], Object], heard_after: int) -> None:
        self.answer, self.heard_after, self.asked = answer, heard_after, 0
        self.admitted_as_wanted: list[bool] = []

    def get(self, kind: Any, *rest: str) -> Any:
        if kind == "Pod":
            return POD
        if kind == "Namespace":
            return namespace(self.asked >= self.heard_after)
        return self._ask()

    async def _ask(self) -> Object:
        self.asked += 1
        return self.answer()

    def decision(self, pod: Object) -> Enrolment:
        return Enrolment(self.asked >= self.heard_after, "for this test")

    def told(self, *_: object) -> None: ...

    async def admitted(self, uid: str, told: object, addresses: object) -> None:
        self.admitted_as_wanted.append(self.decision(POD).wanted)


def ask(node: Node, patience: float = 5.0) -> list[bool]:
    """Whether the pod was let in as one that is wanted in the mesh."""
    anything: Any = node
    gate = Gate("node1", anything, anything, anything, anything, frozenset(), Path("/"), patience)
    asyncio.run(gate.add(REQUEST))
    return node.admitted_as_wanted


def test_a_label_that_no_watch_has_told_of_counts() -> None:
    node = Node(lambda: namespace(True), heard_after=3)
    assert ask(node) == [True]
    assert node.asked == 3


def test_one_question_is_enough_for_a_namespace_without_a_label() -> None:
    node = Node(lambda: namespace(False), heard_after=100)
    assert ask(node) == [False]
    assert node.asked == 1


def test_nobody_is_asked_when_the_pod_is_wanted() -> None:
    node = Node(lambda: namespace(True), heard_after=0)
    assert ask(node) == [True]
    assert node.asked == 0


def test_without_the_api_server_what_is_known_counts() -> None:
    def away() -> Object:
        raise StoreError("nobody answers")

    assert ask(Node(away, heard_after=100)) == [False]


def test_a_namespace_that_is_gone_holds_nobody_up() -> None:
    def gone() -> Object:
        raise NotFound("there is no namespace shop")

    assert ask(Node(gone, heard_after=100)) == [False]


def test_a_watch_that_never_brings_it_refuses_the_pod() -> None:
    node = Node(lambda: namespace(True), heard_after=10**9)
    with pytest.raises(Refused, match="shop/web"):
        ask(node, patience=0.3)
    assert node.admitted_as_wanted == []
