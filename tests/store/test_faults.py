"""Watches through everything that an API server, or the way to it, can do to them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from controller.store.interface import Change, Event, Key
from controller.store.kinds import NODE, POD
from controller.store.kubernetes import KubernetesStore, handover, reading
from controller.store.kubernetes import api as requests
from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.handover import HandOver
from controller.store.kubernetes.health import Health
from controller.store.kubernetes.reading import Reader
from tests.store import faulty as api
from tests.store.faulty import Answer, FaultyServer, faulty
from tests.store.watched import run

A, B, C = (Key("Pod", "shop", name) for name in "abc")
APPLIED, DELETED, SYNCED = Change.APPLIED, Change.DELETED, Change.SYNCED


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "ABSENT_PAUSE"):
        monkeypatch.setattr(reading, name, 0.01)


@asynccontextmanager
async def watched(server: ApiServer) -> AsyncIterator[Callable[[int], Any]]:
    """A function that waits for that many more events, and returns what they say."""
    source = KubernetesStore(server).watch((POD,))

    async def hears(count: int) -> list[tuple[Change, Key | None]]:
        events = [await anext(source) for _ in range(count)]
        return [(event.change, event.key) for event in events]

    try:
        yield hears
    finally:
        await source.aclose()  # type: ignore[attr-defined]


def scenario(lists: list[Answer], watches: list[Answer], work: Callable[[FaultyServer, Any], Any]) -> None:
    async def play() -> None:
        with faulty(lists, watches) as (server, client):
            async with watched(client) as hears:
                await work(server, hears)

    run(play())


async def until(true: Callable[[], object]) -> None:
    """What other threads do has no event to wait for."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


BEFORE = api.page(api.pod("a", 1), api.pod("b", 2), version=10)
AFTER = api.page(api.pod("a", 1), api.pod("c", 12), version=20)


@pytest.mark.parametrize(
    "fault",
    [
        api.ending(api.GONE),
        api.status(410, "Expired"),
        api.ending(b"{garbage\n"),
        api.ending(b'{"type":"ADDED","object":{"metadata":{}}}\n'),
        api.ending(b'{"type":"ADDED","object":7}\n'),
        api.ending(b"[]\n"),
        api.ending(api.event("MOVED", api.pod("a", 13))),
        api.ending(api.event("ERROR", {"kind": "Status", "code": 500, "message": "etcdserver: no leader"})),
    ],
    ids=["gone", "gone at once", "garbage", "nameless", "no object", "no event", "unknown type", "error"],
)
def test_after_what_cannot_be_gone_on_from_the_difference_to_a_new_list_is_told(fault: Answer) -> None:
    async def work(server: FaultyServer, hears: Any) -> None:
        assert await hears(3) == [(APPLIED, A), (APPLIED, B), (SYNCED, None)]
        assert await hears(2) == [(APPLIED, C), (DELETED, B)]
        await until(lambda: server.watched_from == ["10", "20"])

    scenario([BEFORE, AFTER], [fault], work)


def test_what_came_before_garbage_is_told_and_not_told_again() -> None:
    async def work(server: FaultyServer, hears: Any) -> None:
        await hears(3)
        assert await hears(2) == [(APPLIED, C), (DELETED, B)]
        await until(lambda: server.watched_from == ["10", "20"])

    scenario([BEFORE, AFTER], [api.ending(api.event("ADDED", api.pod("c", 12)) + b"garbage\n")], work)


def test_an_object_that_was_replaced_meanwhile_is_deleted_first() -> None:
    async def work(server: FaultyServer, hears: Any) -> None:
        assert await hears(2) == [(APPLIED, A), (SYNCED, None)]
        assert await hears(2) == [(DELETED, A), (APPLIED, A)]

    scenario([api.page(api.pod("a", 1)), api.page(api.pod("a", 12, uid="another"))], [api.ending(api.GONE)], work)


@pytest.mark.parametrize("end", [api.ending, api.breaking])
def test_a_watch_that_ends_is_resumed_where_it_was(end: Callable[..., Answer]) -> None:
    first = end(api.event("MODIFIED", api.pod("a", 11)), api.bookmark(15))
    second = end(api.event("DELETED", api.pod("b", 17)))

    async def work(server: FaultyServer, hears: Any) -> None:
        await hears(3)
        assert await hears(2) == [(APPLIED, A), (DELETED, B)]
        await until(lambda: server.watched_from == ["10", "15", "17"])
        assert sum("watch" not in query for query in server.asked) == 1

    scenario([BEFORE], [first, second], work)


def test_a_watch_that_falls_silent_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server, or a way to it, that died without a word."""
    monkeypatch.setattr(requests, "SILENCE_SECONDS", 0.1)

    async def work(server: FaultyServer, hears: Any) -> None:
        await hears(3)
        await until(lambda: server.watched_from[:3] == ["10", "10", "10"])

    scenario([BEFORE], [], work)


def test_half_an_event_is_none() -> None:
    whole = api.event("MODIFIED", api.pod("a", 11))

    async def work(server: FaultyServer, hears: Any) -> None:
        await hears(3)
        assert await hears(2) == [(APPLIED, A), (DELETED, B)]
        assert server.watched_from[:2] == ["10", "10"]

    pieces = api.staying(whole[:5], whole[5:], api.event("DELETED", api.pod("b", 17)))
    scenario([BEFORE], [api.breaking(whole[:30]), pieces], work)


def test_pages_are_put_together_and_a_list_that_takes_too_long_is_asked_for_as_a_whole() -> None:
    first = api.page(api.pod("a", 1), version=10, more="token")
    everything = api.page(api.pod("a", 1), api.pod("b", 2), version=20)

    async def work(server: FaultyServer, hears: Any) -> None:
        assert await hears(3) == [(APPLIED, A), (APPLIED, B), (SYNCED, None)]
        await until(lambda: server.watched_from == ["20"])
        asked = [(query.get("limit"), query.get("continue")) for query in server.asked if "watch" not in query]
        assert asked == [("500", None), ("500", "token"), (None, None)]

    scenario([first, api.status(410, "Expired"), everything], [], work)


def answer_in_html(handler: Any) -> None:
    handler.send_body(200, b"<html>")


@pytest.mark.parametrize("trouble", [api.hang_up, api.status(503), api.status(429), api.status(401), answer_in_html])
def test_a_server_in_trouble_is_waited_for(trouble: Answer, caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: FaultyServer, hears: Any) -> None:
        assert await hears(3) == [(APPLIED, A), (APPLIED, B), (SYNCED, None)]

    with caplog.at_level(logging.INFO, "store"):
        scenario([trouble, trouble, trouble, BEFORE], [trouble, trouble, api.staying(api.bookmark(30))], work)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert 1 <= len(warnings) <= 2, "said once per list and watch, not once per try"


def test_what_is_refused_is_said_until_it_is_granted() -> None:
    async def play() -> None:
        with faulty([api.status(403, "Forbidden", "pods is forbidden: User x")], []) as (server, client):
            store = KubernetesStore(client)
            source = store.watch((POD,))
            first = asyncio.ensure_future(anext(source))
            await until(store._health.problems)
            (problem,) = await store.problems()
            assert "GET /api/v1/pods: pods is forbidden: User x (403)" in problem
            server.lists[:] = [BEFORE]
            assert (await first).key == A
            await until(lambda: not store._health.problems())
            await source.aclose()  # type: ignore[attr-defined]

    run(play())


def test_a_kind_that_the_cluster_does_not_have_is_said_once_and_holds_up_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    absent = api.status(404, "NotFound", "the server could not find the requested resource")

    async def work(server: FaultyServer, hears: Any) -> None:
        assert await hears(1) == [(SYNCED, None)]
        assert await hears(2) == [(APPLIED, A), (APPLIED, B)]

    with caplog.at_level(logging.WARNING, "store"):
        scenario([absent, absent, absent, BEFORE], [], work)
    assert len([record for record in caplog.records if "has no kind Pod (v1)" in record.message]) == 1


def test_a_kind_that_is_taken_away_is_believed_gone_only_after_a_while() -> None:
    absent = api.status(404, "NotFound")

    def order(pair: tuple[Change, Key]) -> Key:
        return pair[1]

    async def play() -> None:
        with faulty([BEFORE, absent, BEFORE, absent], [absent, absent]) as (server, client):
            async with watched(client) as hears:
                assert await hears(3) == [(APPLIED, A), (APPLIED, B), (SYNCED, None)]
                assert sorted(await hears(2), key=order) == [(DELETED, A), (DELETED, B)]
                assert server.watched_from == ["10", "10"], "it was looked at again before it was believed"

    run(play())


def test_pauses_grow_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """No busy loop: with the dice at their worst, a server that does nothing but fail is asked ever more rarely."""
    monkeypatch.setattr(reading, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(reading, "LONGEST_PAUSE", 3.0)
    monkeypatch.setattr(reading.random, "random", lambda: 0.5)

    async def play() -> None:
        with faulty([BEFORE], [api.hang_up] * 4 + [api.ending()] * 2) as (_, client):
            reader = Reader(client, POD, {}, HandOver(), Health())
            waits = [await asyncio.to_thread(reader._step) for _ in range(7)]
        assert waits == pytest.approx([0.0, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0])

    run(play())


def test_a_server_that_ends_every_watch_at_once_is_not_asked_without_a_pause() -> None:
    async def play() -> None:
        with faulty([BEFORE], [api.ending(api.bookmark(11))] * 3) as (_, client):
            reader = Reader(client, POD, {}, HandOver(), Health())
            waits = [await asyncio.to_thread(reader._step) for _ in range(4)]
        assert waits == [0.0, *[reading.RESUME_PAUSE] * 3]

    run(play())


def test_what_nobody_takes_is_not_read() -> None:
    """The hand-over is bounded: a server with more to say has to wait."""
    many = [api.event("ADDED", api.pod(f"p{number}", 100 + number)) for number in range(3 * handover.MAX_BATCHES)]
    told: list[int] = []

    def flood(handler: Any) -> None:
        handler.begin_stream()
        for number, line in enumerate(many):
            handler.send_chunk(line[:-1] + b" " * 300_000 + b"\n")  # more than one read, so that each is a batch
            told.append(number)
        handler.server.closing.wait()

    async def play() -> None:
        with faulty([api.page(version=10)], [flood]) as (_, client):
            to = HandOver()
            reader = Reader(client, POD, {}, to, Health())
            reader.start()
            await until(lambda: to._batches.qsize() == handover.MAX_BATCHES)
            assert len(told) < len(many)
            events = [event for _ in range(len(many) + 1) for event in await to.take()]
            assert [event.key.name for event in events if event.key] == [f"p{number}" for number in range(len(many))]
            to.close()
            reader.stop()

    run(play())


def test_a_watch_that_is_closed_leaves_no_thread() -> None:
    def readers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]

    async def play() -> None:
        with faulty([BEFORE], []) as (server, client):
            source = KubernetesStore(client).watch((POD, NODE))
            events: list[Event] = []
            while not events or events[-1].change is not SYNCED:
                events.append(await anext(source))
            await until(lambda: len(server.watched_from) == 2)
            assert len(readers()) == 2
            await source.aclose()  # type: ignore[attr-defined]
            await until(lambda: not readers())

    run(play())


def test_objects_come_without_what_only_the_server_needs() -> None:
    async def play() -> None:
        with faulty([BEFORE], []) as (_, client):
            store = KubernetesStore(client)
            first = (await store.list(POD))[0]
            metadata = {"name": "a", "namespace": "shop", "uid": "uid-a", "resourceVersion": "1"}
            assert first == {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}}

    run(play())
