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
    """`ask` sends to every worker and says how many there are. One question is open at a time: who wants to know
    meanwhile shares its answer, so that nobody who asks a thousand times keeps the workers from their work."""

    def __init__(self, ask: Callable[[DescribeConnections], int]) -> None:
        self._ask = ask
        self._numbers = count(1)
        self._open: dict[int, _Question] = {}
        self._asking: asyncio.Task[tuple[list[Connection], dict[str, int]]] | None = None
        self.incomplete = 0  # questions that not all have answered in time

    async def connections(self) -> tuple[list[Connection], dict[str, int]]:
        """What lives now, and the workers' counters added up."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._all_answers(), name="inquiry")
        return await asyncio.shield(self._asking)

    async def _all_answers(self) -> tuple[list[Connection], dict[str, int]]:
        number = next(self._numbers)
        question = self._open[number] = _Question(self._ask(DescribeConnections(number)))
        try:
            if question.expected:
                await asyncio.wait_for(question.complete.wait(), PATIENCE)
        except TimeoutError:
            self.incomplete += 1
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
