"""Questions to all workers at once: which connections live, and what their counters say."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from ztunnel.feed import Connection, Connections, DescribeConnections

PATIENCE = 2.0  # seconds; a worker that is busier than this is left out of the answer


@dataclass
class _Question:
    expected: int
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    answers: list[Connections] = field(default_factory=list)


class Inquiry:
    """`ask` sends to every worker and says how many there are."""

    def __init__(self, ask: Callable[[DescribeConnections], int]) -> None:
        self._ask = ask
        self._numbers = count(1)
        self._open: dict[int, _Question] = {}

    async def connections(self) -> tuple[list[Connection], dict[str, int]]:
        """What lives now, and the workers' counters added up."""
        number = next(self._numbers)
        question = self._open[number] = _Question(self._ask(DescribeConnections(number)))
        try:
            if question.expected:
                await asyncio.wait_for(question.complete.wait(), PATIENCE)
        except TimeoutError:
            pass
        finally:
            del self._open[number]
        counters: Counter[str] = Counter()
        for answer in question.answers:
            counters.update(answer.counters)
        return [one for answer in question.answers for one in answer.connections], dict(counters)

    def answered(self, answer: Connections) -> None:
        question = self._open.get(answer.number)
        if question is None:
            return
        question.answers.append(answer)
        if len(question.answers) >= question.expected:
            question.complete.set()
