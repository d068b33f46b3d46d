"""Who writes: decisions in a table, and several candidates on a real API server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from controller import election
from controller.election import Election, Record, claimed, is_free, read
from controller.store.kubernetes import paths
from tests.controller.process import run
from tests.store.apiserver import Server
from tests.store.system import System

NOW = datetime(2030, 1, 2, 3, 4, 5, 6, UTC)


@pytest.mark.parametrize(
    ("holder", "unchanged", "free"),
    [("", 0.0, True), ("me", 0.0, True), ("other", 0.0, False), ("other", 14.9, False), ("other", 15.0, True)],
)
def test_whose_lease_may_be_taken(holder: str, unchanged: float, free: bool) -> None:
    assert is_free(Record(holder, "then", 15.0, 0), "me", unchanged) is free


def test_what_a_claim_says() -> None:
    first = claimed(None, "me", NOW)
    assert first == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "renewTime": "2030-01-02T03:04:05.000006Z",
        "acquireTime": "2030-01-02T03:04:05.000006Z",
        "leaseTransitions": 0,
    }
    record = read({"spec": first})
    assert "acquireTime" not in claimed(record, "me", NOW)
    assert claimed(record, "other", NOW)["leaseTransitions"] == 1


class Candidate:
    """Its work does nothing but count as under way."""

    working: list[str]

    def __init__(self, system: System, name: str, working: list[str]) -> None:
        self.name, self.working = name, working
        self.server = system.server.api(system.controller_token())
        self.election = Election(self.server, system.namespace, name)
        self.task = asyncio.create_task(self.election.run(self._work))

    async def _work(self) -> None:
        assert not self.working, "two at once"
        self.working.append(self.name)
        try:
            await asyncio.Event().wait()
        finally:
            self.working.remove(self.name)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def until_one_works(working: list[str], not_this: str = "") -> str:
    async with asyncio.timeout(30):
        while not working or working == [not_this]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return working[0]


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "HELD_SECONDS", 2.0)
    monkeypatch.setattr(election, "GIVE_UP_SECONDS", 1.0)
    monkeypatch.setattr(election, "RENEW_SECONDS", 0.2)


@pytest.mark.usefixtures("hurry")
def test_one_of_several_works_and_another_takes_over(api_server: Server) -> None:
    system = System(api_server)

    async def scenario() -> None:
        working: list[str] = []
        candidates = {name: Candidate(system, name, working) for name in ("a", "b", "c")}
        first = await until_one_works(working)
        assert [name for name, each in candidates.items() if each.election.leading] == [first]
        await candidates.pop(first).stop()
        lease = await candidates["c" if first != "c" else "a"].server.call(
            system.api.get, paths.of(election.LEASE, "ambit-controller", system.namespace)
        )
        assert lease["spec"].get("holderIdentity", "") != first, "given back, not left to run out"
        second = await until_one_works(working, first)
        assert second != first
        for each in candidates.values():
            await each.stop()

    run(scenario())


@pytest.mark.usefixtures("hurry")
def test_who_cannot_renew_stops_before_another_begins(api_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The candidates assert that two never work at once."""
    system = System(api_server)

    async def scenario() -> None:
        working: list[str] = []
        candidates = {name: Candidate(system, name, working) for name in ("a", "b")}
        first = await until_one_works(working)
        nowhere = system.server.api(port=1)
        monkeypatch.setattr(candidates[first].election, "_server", nowhere)
        second = await until_one_works(working, first)
        assert second != first
        assert not candidates[first].election.leading
        for each in candidates.values():
            await each.stop()

    run(scenario())
