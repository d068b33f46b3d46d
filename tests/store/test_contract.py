"""What every store holds, in a directory and in a real API server alike."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.store.interface import Change, Conflict, Event, Key, NotFound, StoreError
from controller.store.kinds import DEPLOYMENT, ENDPOINT_SLICE, NAMESPACE, POD
from tests.store.homes import Home, deployment, pod
from tests.store.watched import Watched, run, watching

REDIRECTION = "ambient.istio.io/redirection"


def web(home: Home, name: str = "web") -> Key:
    return Key("Pod", home.namespace, name)


def annotate(obj: dict[str, Any]) -> None:
    obj["metadata"].setdefault("annotations", {})[REDIRECTION] = "enabled"


def label(**labels: str) -> Any:
    return lambda obj: obj["metadata"].setdefault("labels", {}).update(labels)


def test_an_applied_object_comes_back(home: Home) -> None:
    async def scenario() -> None:
        store = home.store()
        applied = await store.apply(pod(home.namespace))
        assert await store.get(POD, "web", home.namespace) == applied
        assert await store.list(POD, home.namespace) == (applied,)
        assert applied in await store.list(POD)
        assert await store.list(POD, "elsewhere") == ()
        assert [applied["apiVersion"], applied["kind"]] == ["v1", "Pod"]

    run(scenario())


def test_metadata_is_kept(home: Home) -> None:
    key = Key("Deployment", home.namespace, "web")

    async def scenario() -> None:
        store = home.store()
        first = (await store.apply(deployment(home.namespace)))["metadata"]
        again = (await store.apply(deployment(home.namespace)))["metadata"]
        labelled = (await store.change(key, label(a="b")))["metadata"]
        changed = (await store.apply(deployment(home.namespace, image="other")))["metadata"]
        assert again == first
        assert [first["generation"], labelled["generation"], changed["generation"]] == [1, 1, 2]
        assert {each["uid"] for each in (first, labelled, changed)} == {first["uid"]}
        assert {each["creationTimestamp"] for each in (labelled, changed)} == {first["creationTimestamp"]}
        versions = [int(each["resourceVersion"]) for each in (first, labelled, changed)]
        assert versions == sorted(set(versions))
        await store.delete(key)
        assert (await store.apply(deployment(home.namespace)))["metadata"]["uid"] != first["uid"]

    run(scenario())


def test_status_and_the_rest_are_written_apart(home: Home) -> None:
    async def scenario() -> None:
        store = home.store()
        await store.apply(pod(home.namespace) | {"status": {"phase": "Failed"}})

        def edit(obj: dict[str, Any]) -> None:
            obj.setdefault("status", {})["phase"] = "Running"
            obj["metadata"]["labels"] = {"a": "b"}

        def forget(obj: dict[str, Any]) -> None:
            obj.pop("status")

        assert (await store.get(POD, "web", home.namespace)).get("status", {}).get("phase") != "Failed"
        assert "labels" not in (await store.change_status(web(home), edit))["metadata"]
        assert (await store.apply(pod(home.namespace, image="other")))["status"]["phase"] == "Running"
        assert (await store.change(web(home), forget))["status"]["phase"] == "Running"

    run(scenario())


def test_what_the_mesh_wrote_survives_the_manifest_being_applied_again(home: Home) -> None:
    async def scenario() -> None:
        store = home.store()
        await store.apply(pod(home.namespace))
        await store.change(web(home), annotate)
        again = await store.apply(pod(home.namespace, image="other"))
        assert again["metadata"]["annotations"][REDIRECTION] == "enabled"
        assert again["spec"]["containers"][0]["image"] == "other"

    run(scenario())


def test_what_a_manifest_no_longer_says_is_removed(home: Home) -> None:
    async def scenario() -> None:
        store = home.store()
        labelled = pod(home.namespace)
        labelled["metadata"]["labels"] = {"a": "b", "c": "d"}
        await store.apply(labelled)
        await store.change(web(home), label(e="f"))
        labelled["metadata"]["labels"] = {"a": "b"}
        assert (await store.apply(labelled))["metadata"]["labels"] == {"a": "b", "e": "f"}

    run(scenario())


def test_a_change_can_take_away(home: Home) -> None:
    async def scenario() -> None:
        store = home.store()
        await store.apply(pod(home.namespace))
        await store.change(web(home), annotate)
        changed = await store.change(web(home), lambda obj: obj["metadata"]["annotations"].pop(REDIRECTION))
        assert REDIRECTION not in changed["metadata"].get("annotations", {})
        assert await store.change(web(home), lambda obj: None) == changed

    run(scenario())


def test_an_outdated_manifest_is_a_conflict(home: Home) -> None:
    async def scenario() -> None:
        store = home.store()
        outdated = pod(home.namespace, image="other")
        outdated["metadata"]["resourceVersion"] = (await store.apply(pod(home.namespace)))["metadata"][
            "resourceVersion"
        ]
        await store.change(web(home), annotate)
        with pytest.raises(Conflict):
            await store.apply(outdated)

    run(scenario())


def test_what_is_not_there_is_said(home: Home) -> None:
    store, key = home.store(), web(home)

    def nothing(obj: dict[str, Any]) -> None:
        raise AssertionError

    for work in (
        lambda: store.get(POD, "web", home.namespace),
        lambda: store.delete(key),
        lambda: store.change(key, nothing),
        lambda: store.change_status(key, nothing),
        lambda: store.get(POD, "../../../etc/passwd", home.namespace),
    ):
        with pytest.raises(NotFound, match=f"there is no Pod {home.namespace}/"):
            run(work())


def test_a_malformed_object_is_refused_and_nothing_is_written(home: Home) -> None:
    async def scenario() -> None:
        store = home.store()
        with pytest.raises(StoreError, match="containers"):
            await store.apply(pod(home.namespace) | {"spec": {"containers": 3}})
        applied = await store.apply(pod(home.namespace))
        with pytest.raises(StoreError, match="containers"):
            await store.change(web(home), lambda obj: obj["spec"].update(containers=3))
        with pytest.raises(StoreError, match=r"Pod .*/web: metadata.name cannot be changed"):
            await store.change(web(home), lambda obj: obj["metadata"].update(name="other"))
        assert await store.get(POD, "web", home.namespace) == applied

    run(scenario())


def test_changes_made_at_once_are_all_kept(home: Home) -> None:
    def count(obj: dict[str, Any]) -> None:
        labels = obj["metadata"].setdefault("labels", {})
        labels["count"] = str(int(labels.get("count", "0")) + 1)

    async def writer() -> None:
        store = home.store()
        for _ in range(8):
            await store.change(web(home), count)

    async def scenario() -> None:
        await home.store().apply(pod(home.namespace))
        await asyncio.gather(*(writer() for _ in range(4)))
        assert (await home.store().get(POD, "web", home.namespace))["metadata"]["labels"]["count"] == "32"

    run(scenario())


def test_a_watch_begins_with_what_exists_and_goes_on_with_every_change(home: Home) -> None:
    async def scenario() -> None:
        store, other = home.store(), home.store()
        await store.apply(pod(home.namespace))
        source = store.watch((NAMESPACE, POD))
        watched = Watched(source, home.namespace)
        await watched.until(lambda events: events and events[-1].change is Change.SYNCED)
        assert web(home) in [event.key for event in watched.events]
        watched.events.clear()
        await other.change(web(home), label(a="b"))
        event = await watched.hears(Change.APPLIED, web(home))
        assert event.object is not None
        assert event.object["metadata"]["labels"] == {"a": "b"}
        assert [event.object["apiVersion"], event.object["kind"]] == ["v1", "Pod"]
        await other.apply(pod(home.namespace, "new"))
        await watched.hears(Change.APPLIED, web(home, "new"))
        await other.delete(web(home))
        gone = (await watched.hears(Change.DELETED, web(home))).object
        assert gone is not None
        assert gone["metadata"]["uid"] == event.object["metadata"]["uid"]
        await source.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_what_is_watched_is_what_is_got(home: Home) -> None:
    """Whoever decides on events decides as one who looks at the objects."""

    async def scenario() -> None:
        store = home.store()
        await store.apply(pod(home.namespace))
        source = store.watch((POD,))
        events: list[Event] = []
        while not events or events[-1].change is not Change.SYNCED:
            events.append(await anext(source))
        (told,) = [event.object for event in events if event.key == web(home)]
        assert told == await store.get(POD, "web", home.namespace)
        assert "managedFields" not in told["metadata"]
        await source.aclose()  # type: ignore[attr-defined]

    run(scenario())


def test_only_the_kinds_asked_for_are_delivered(home: Home) -> None:
    async def scenario() -> None:
        store = home.store()
        async with watching(store, home.namespace) as watched:
            piece = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "addressType": "IPv4",
                "endpoints": [],
            }
            await store.apply(piece | {"metadata": {"name": "s", "namespace": home.namespace}})
            await store.apply(pod(home.namespace))
            await watched.until(lambda events: events)
            assert [event.key for event in watched.events] == [web(home)]
        assert len(await store.list(ENDPOINT_SLICE, home.namespace)) == 1
        assert await store.list(DEPLOYMENT, home.namespace) == ()

    run(scenario())


def test_a_pod_that_has_a_node_is_deleted_in_two_steps(home: Home) -> None:
    """Marked first, gone when its node says so."""
    running = pod(home.namespace, nodeName="node1", terminationGracePeriodSeconds=7)

    async def scenario() -> None:
        store = home.store()
        await store.apply(running)
        async with watching(store, home.namespace) as watched:
            await store.delete(web(home))
            marked = await watched.hears(Change.APPLIED, web(home))
            assert marked.object is not None
            assert marked.object["metadata"]["deletionTimestamp"]
            assert marked.object["metadata"]["deletionGracePeriodSeconds"] == 7
            await home.end(web(home))
            await watched.hears(Change.DELETED, web(home))

    run(scenario())


def test_a_pod_that_has_ended_is_deleted_at_once(home: Home) -> None:
    async def scenario() -> None:
        store = home.store()
        await store.apply(pod(home.namespace, nodeName="node1"))
        await store.change_status(web(home), lambda obj: obj.setdefault("status", {}).update(phase="Succeeded"))
        await store.delete(web(home))
        with pytest.raises(NotFound):
            await store.get(POD, "web", home.namespace)

    run(scenario())


def test_waiting_costs_nothing(home: Home) -> None:
    """Whoever watches sleeps in the kernel: an idle event loop has nothing scheduled."""

    async def scenario() -> None:
        source = home.store().watch((POD,))
        while (await anext(source)).change is not Change.SYNCED:
            pass
        waiting: asyncio.Future[Event] = asyncio.ensure_future(anext(source))
        await asyncio.sleep(0.05)
        loop: Any = asyncio.get_running_loop()
        deadlines = [handle for handle in loop._scheduled if not handle.cancelled()]
        assert len(deadlines) == 1  # the test's own time-out
        waiting.cancel()

    run(scenario())
