"""The ztunnels of a measurement, as the one who measures sees them: what each has been told, and when."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict

from perf.scale.subscribers import Task, Told

_PATIENCE = 120.0  # seconds until something that does not come is an error
_LINE = 1 << 20


class Missing(Exception):
    """What was to reach the ztunnels has not."""


class Crowd:
    """A running process of subscribers; `heard` are the responses since the last `forget`."""

    def __init__(self, process: asyncio.subprocess.Process, size: int) -> None:
        self._process = process
        self._news = asyncio.Condition()
        self.size = size
        self.heard: list[Told] = []

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            fields = json.loads(line)
            told = Told(**fields | {"names": tuple(fields["names"]), "removed": tuple(fields["removed"])})
            async with self._news:
                self.heard.append(told)
                self._news.notify_all()
        raise Missing("the ztunnels' process has ended")

    def forget(self) -> None:
        self.heard.clear()

    async def until_full(self, resources: int) -> tuple[float, ...]:
        """When each had got so many resources. Raises Missing."""
        counts = dict.fromkeys(range(self.size), 0)

        def take(told: Told) -> bool:
            counts[told.who] += told.count
            return counts[told.who] >= resources

        return await self._until(take, f"{resources} resources", lambda: f"{min(counts.values())} at the least")

    async def until_all(self, names: Iterable[str], removed: bool = False) -> tuple[float, ...]:
        """When each had been told the last of these resources. Raises Missing."""
        wanted = set(names)
        missing = {number: set(wanted) for number in range(self.size)}

        def take(told: Told) -> bool:
            missing[told.who].difference_update(told.removed if removed else told.names)
            return not missing[told.who]

        return await self._until(take, f"{len(wanted)} changes", lambda: str(sum(map(len, missing.values()))))

    async def _until(self, take: Callable[[Told], bool], what: str, how_far: Callable[[], str]) -> tuple[float, ...]:
        done: dict[int, float] = {}
        seen = 0
        try:
            async with asyncio.timeout(_PATIENCE), self._news:
                while True:
                    for told in self.heard[seen:]:
                        if take(told):
                            done.setdefault(told.who, told.at)
                    seen = len(self.heard)
                    if len(done) == self.size:
                        return tuple(done[number] for number in range(self.size))
                    await self._news.wait()
        except TimeoutError:
            raise Missing(f"{what} have not reached all ztunnels after {_PATIENCE:.0f} s: {how_far()}") from None


@asynccontextmanager
async def crowd(task: Task) -> AsyncIterator[Crowd]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perf.scale.subscribers", stdin=pipe, stdout=pipe, limit=_LINE
    )
    found = Crowd(process, len(task.tokens))
    listening = asyncio.create_task(found.listen())
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        yield found
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        if process.returncode is None:
            process.kill()
        await process.wait()
