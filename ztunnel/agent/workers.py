"""Keeps the workers running and told: each gets the whole state when it starts, and every change from then on."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from mesh.model.workload import WorkloadUid
from mesh.runtime import compiled
from mesh.runtime.backoff import Backoff
from ztunnel.agent.process import ProcessId, Roster, identify, spawn
from ztunnel.channel import AgentChannel, ChannelBroken
from ztunnel.feed import Drain, Misunderstood, Ping, PodAdded, PodFailed, PodRemoved, Ready, ToAgent, ToWorker

RESTART_START, RESTART_CAP = 0.02, 1.0  # seconds: at once, but one that dies at once is no busy loop
STABLE_AFTER = 10.0  # seconds: a worker that lived this long did not die of its start
PATIENCE_ASKS = 6  # times that a worker is asked for a sign of life before it is given up
WORRYING = 2  # unanswered ones: until then a busy machine explains it
KILL_AFTER = 1.0  # seconds past the drain deadline

log = logging.getLogger("workers")

Parcel = tuple[ToWorker, tuple[int, ...]]


class Worker:
    """One process and the channel to it, watched by the event loop until it ends."""

    def __init__(
        self, process: subprocess.Popen[bytes], channel: AgentChannel, receive: Callable[[ToAgent], None]
    ) -> None:
        self.process = process
        self.ready = False  # it has taken in what was known when it started
        self.unanswered = 0  # times that it was asked for a sign of life since it gave one
        self.serving: frozenset[WorkloadUid] = frozenset()
        self.failed: dict[WorkloadUid, str] = {}
        self.ended = asyncio.Event()
        self._channel = channel
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._writing = False
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._exited)
        self._loop.add_reader(channel.fileno(), self._readable)

    def tell(self, message: ToWorker, descriptors: tuple[int, ...] = ()) -> None:
        """Queued in bounded memory; sent as fast as the worker reads."""
        match message:
            case PodAdded(uid=uid) | PodRemoved(uid=uid):
                self.failed.pop(uid, None)
        self._channel.outbox.put(message, descriptors)
        if not self._writing:
            self._flush()

    def ask_for_life(self) -> None:
        """One that has taken in the mesh is told from now on; nothing that it does takes long."""
        if self.ready:
            self.unanswered += 1
            self.tell(Ping())

    @property
    def untold(self) -> int:
        """Messages that it has not read yet, besides what the socket holds."""
        return len(self._channel.outbox)

    @property
    def hangs(self) -> bool:
        return self.unanswered > WORRYING

    def _flush(self) -> None:
        if self.ended.is_set():
            return
        try:
            done = self._channel.flush()
        except ChannelBroken:
            self._broken()
            return
        if done and self._writing:
            self._loop.remove_writer(self._channel.fileno())
        elif not done and not self._writing:
            self._loop.add_writer(self._channel.fileno(), self._flush)
        self._writing = not done

    def _readable(self) -> None:
        try:
            for message, _ in self._channel.receive():
                self._note(message)
                self._receive(message)
        except ChannelBroken as error:
            if identify(self.process.pid) is not None:
                log.error("worker %d: %s; it is replaced", self.process.pid, error)
            self._broken()

    def _note(self, message: ToAgent) -> None:
        match message:
            case Ready(pods=pods):
                self.ready = True
                self.unanswered = 0
                self.serving = frozenset(pods)
            case PodFailed(uid=uid, reason=reason):
                self.failed[uid] = reason
            case Misunderstood(reason=reason):
                log.error("worker %d does not understand what it is told: %s", self.process.pid, reason)

    def _broken(self) -> None:
        """Without its channel a worker cannot be led: it makes room for another."""
        self._unwatch()
        if not self.ended.is_set():
            self.process.kill()

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.process.wait()
        if self._channel.fileno() >= 0:
            self._readable()  # its last words
        self._unwatch()
        self.ended.set()

    def _unwatch(self) -> None:
        if self._channel.fileno() < 0:
            return
        self._loop.remove_reader(self._channel.fileno())
        self._loop.remove_writer(self._channel.fileno())
        self._channel.close()


class Workers:
    """`state` gives all that a new worker has to know, in order; `receive` takes what workers say; `changed` is called
    when one has started to serve or has ended."""

    def __init__(
        self,
        count: int,
        state: Callable[[], Iterable[Parcel]],
        receive: Callable[[ToAgent], None],
        changed: Callable[[], None],
        roster: Roster,
        patience: float,
    ) -> None:
        self._count = count
        self._state = state
        self._receive_further = receive
        self._changed = changed
        self._roster = roster
        self._patience = patience
        self._workers: dict[int, Worker] = {}  # by slot
        self._tasks: list[asyncio.Task[None]] = []
        self._waiting: set[asyncio.Future[None]] = set()
        self._draining = False
        self.restarts = 0

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep(slot), name=f"worker {slot}") for slot in range(self._count)]
        self._watch = asyncio.create_task(self._watch_for_ever(), name="watch over workers")

    def publish(self, message: ToWorker, descriptors: tuple[int, ...] = ()) -> None:
        for worker in self._workers.values():
            worker.tell(message, descriptors)

    @property
    def untold(self) -> int:
        return sum(worker.untold for worker in self._workers.values())

    @property
    def running(self) -> int:
        return len(self._workers)

    @property
    def hanging(self) -> list[int]:
        """The process ids of those that have not given a sign of life for some time."""
        return [worker.process.pid for worker in self._workers.values() if worker.hangs]

    @property
    def ready(self) -> bool:
        return self.running == self._count and all(worker.ready for worker in self._workers.values())

    async def served(self, uid: WorkloadUid) -> str:
        """Waits until every worker serves a pod, or one says why it cannot: "" or that reason."""
        async for _ in self._changes():
            if reasons := [worker.failed[uid] for worker in self._workers.values() if uid in worker.failed]:
                return reasons[0]
            if self.running == self._count and all(uid in worker.serving for worker in self._workers.values()):
                return ""
        raise AssertionError("unreachable")

    async def released(self, uid: WorkloadUid) -> None:
        """Waits until no worker serves a pod."""
        async for _ in self._changes():
            if not any(uid in worker.serving for worker in self._workers.values()):
                return

    async def drain(self, deadline: float) -> None:
        """Tells all to end; returns when they have, at the latest shortly after `deadline` seconds."""
        self._draining = True
        self._watch.cancel()
        self.publish(Drain(deadline))
        ends = [asyncio.create_task(worker.ended.wait()) for worker in self._workers.values()]
        if ends:
            await asyncio.wait(ends, timeout=deadline + KILL_AFTER)
        for worker in list(self._workers.values()):
            if not worker.ended.is_set():
                log.warning("worker %d did not end in time", worker.process.pid)
                worker.process.kill()
        await asyncio.gather(*self._tasks)

    async def _keep(self, slot: int) -> None:
        backoff = Backoff(RESTART_START, RESTART_CAP)
        while not self._draining:
            began = asyncio.get_running_loop().time()
            await self._run_one(slot)
            if self._draining:
                return
            if asyncio.get_running_loop().time() - began > STABLE_AFTER:
                backoff.succeeded()
            self.restarts += 1
            await asyncio.sleep(backoff.after_failure(random.random()))

    async def _watch_for_ever(self) -> None:
        """Turns are counted, not seconds: when the whole machine has paused, workers have had as few as this agent."""
        while True:
            await asyncio.sleep(self._patience / PATIENCE_ASKS)
            before = self.hanging
            for worker in self._workers.values():
                if worker.unanswered >= PATIENCE_ASKS:
                    log.error("worker %d hangs: no sign of life for %g s", worker.process.pid, self._patience)
                    worker.process.kill()
                else:
                    worker.ask_for_life()
            if self.hanging != before:
                self._changed()

    async def _run_one(self, slot: int) -> None:
        environment, code = compiled.environment(os.environ)
        log.info("a worker starts, %s", code)
        try:
            process, sock = spawn(environment)
        except OSError as error:
            log.error("cannot start a worker: %s", error.strerror)
            return
        worker = self._workers[slot] = Worker(process, AgentChannel(sock), self._receive)
        self._write_roster()
        for message, descriptors in self._state():
            worker.tell(message, descriptors)
        await worker.ended.wait()
        del self._workers[slot]
        self._write_roster()
        self._wake()
        if not self._draining:
            log.error("worker %d ended with status %d; a new one starts", process.pid, process.returncode)

    def _receive(self, message: ToAgent) -> None:
        if isinstance(message, Ready | PodFailed | Misunderstood):
            self._wake()
        else:
            self._receive_further(message)

    def _write_roster(self) -> None:
        self._roster.write(self._process_ids())

    def _process_ids(self) -> Iterator[ProcessId]:
        for worker in self._workers.values():
            if found := identify(worker.process.pid):
                yield found

    async def _changes(self) -> AsyncIterator[None]:
        """Now, and after each thing that a worker said about pods."""
        while True:
            yield
            future = asyncio.get_running_loop().create_future()
            self._waiting.add(future)
            try:
                await future
            finally:
                self._waiting.discard(future)

    def _wake(self) -> None:
        self._changed()
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
