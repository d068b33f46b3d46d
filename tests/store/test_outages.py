"""A real API server that is away, comes back, forgets its history or learns new kinds."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.store.interface import Change, Key, Kind, StoreError
from controller.store.kinds import POD, key_of
from controller.store.kubernetes import KubernetesStore, paths, reading
from tests.identity import certificates_for_tests as made
from tests.store.apiserver import Server, ensure
from tests.store.homes import KubernetesHome, pod
from tests.store.proxy import proxy
from tests.store.watched import PATIENCE, run, watching

APPLIED, DELETED = Change.APPLIED, Change.DELETED


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(reading, "ABSENT_PAUSE", 0.1)


def label(**labels: str) -> Any:
    return lambda obj: obj["metadata"].setdefault("labels", {}).update(labels)


@pytest.mark.parametrize("restarted", [False, True], ids=["resumed", "history lost"])
def test_what_happens_while_the_server_cannot_be_reached_is_told_afterwards(
    cluster: KubernetesHome, restarted: bool
) -> None:
    a, b, c, unchanged = (Key("Pod", cluster.namespace, name) for name in "abcd")

    async def scenario() -> None:
        direct = cluster.store()
        await direct.apply(pod(cluster.namespace, "a"))
        await direct.apply(pod(cluster.namespace, "b"))
        await direct.apply(pod(cluster.namespace, "d"))
        with proxy(cluster.server.port) as way:
            async with watching(cluster.store(way.port), cluster.namespace) as watched:
                way.close_door()
                await direct.delete(a)
                await direct.change(b, label(x="y"))
                await direct.apply(pod(cluster.namespace, "c"))
                if restarted:  # the history that a watch resumes from is in the server's memory
                    await asyncio.to_thread(cluster.server.stop)
                    await asyncio.to_thread(cluster.server.start)
                way.open_door()
                await watched.until(lambda events: {a, b, c} <= {event.key for event in events})
                told = {event.key: event for event in watched.events}
                assert [told[key].change for key in (a, b, c)] == [DELETED, APPLIED, APPLIED]
                assert told[b].object["metadata"]["labels"] == {"x": "y"}  # type: ignore[index]
                assert unchanged not in told, "what did not change is not told again"

    run(scenario())


def test_a_silent_end_of_all_connections_is_noticed_and_said_once(
    cluster: KubernetesHome, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        with proxy(cluster.server.port) as way:
            store = cluster.store(way.port)
            async with watching(store, cluster.namespace):
                assert await store.problems() == ()
                way.close_door()
                await _until_true(store, True)
                way.open_door()
                await _until_true(store, False)

    run(scenario())
    said = [record.message for record in caplog.records if "cannot be reached" in record.message]
    assert len(said) == len(set(said)) >= 1


async def _until_true(store: KubernetesStore, problems: bool) -> None:
    async with asyncio.timeout(PATIENCE):
        while bool(await store.problems()) is not problems:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


_steps = st.lists(
    st.tuples(
        st.sampled_from(["apply", "label", "delete", "remove", "cut", "close", "open"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 3),
    ),
    min_size=5,
    max_size=25,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
def test_what_a_watcher_was_told_is_what_is_there(api_server: Server, steps: list[Any]) -> None:
    """Whatever happens to objects, and to the way to the server, all at once."""
    home = KubernetesHome(api_server)

    async def scenario() -> None:
        direct = home.store()
        told: dict[Key, Any] = {}
        with proxy(home.server.port) as way:

            async def listen() -> None:
                async for event in home.store(way.port).watch((POD,)):
                    if event.key is None or event.key.namespace != home.namespace:
                        continue
                    if event.change is DELETED:
                        del told[event.key]
                    else:
                        told[event.key] = event.object

            listening = asyncio.create_task(listen())
            ways = {"cut": way.cut, "close": way.close_door, "open": way.open_door}
            for what, name, value in steps:
                if what in ways:
                    ways[what]()
                else:
                    await _do(home, direct, what, name, value)
            way.open_door()
            await direct.apply(pod(home.namespace, "last"))
            while told != {key_of(obj): obj for obj in await direct.list(POD, home.namespace)}:
                assert not listening.done()
                await asyncio.sleep(0.02)
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    run(scenario())


async def _do(home: KubernetesHome, store: KubernetesStore, what: str, name: str, value: int) -> None:
    key = Key("Pod", home.namespace, name)
    with contextlib.suppress(StoreError):
        match what:
            case "apply":
                await store.apply(pod(home.namespace, name, f"image{value}", nodeName="node1"))
            case "label":
                await store.change(key, label(value=str(value)))
            case "delete":
                await store.delete(key)
            case "remove":
                await home.end(key)


def test_only_the_pods_of_one_node(cluster: KubernetesHome) -> None:
    async def scenario() -> None:
        direct, store = cluster.store(), cluster.store(pod_node=f"{cluster.namespace}-node1")
        for name, node in (("a", "node1"), ("b", "node2")):
            await direct.apply(pod(cluster.namespace, name, nodeName=f"{cluster.namespace}-{node}"))
        assert [obj["metadata"]["name"] for obj in await store.list(POD)] == ["a"]
        async with watching(store, cluster.namespace) as watched:
            await direct.apply(pod(cluster.namespace, "c", nodeName=f"{cluster.namespace}-node2"))
            await direct.apply(pod(cluster.namespace, "d", nodeName=f"{cluster.namespace}-node1"))
            await watched.until(lambda events: events)
            assert [event.key.name for event in watched.events if event.key] == ["d"]

    run(scenario())


# --- kinds that come and go

DEFINITION = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False)
WIDGET = Kind("ambit.test", "v1", "Widget", "widgets")


def _definition() -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "metadata": {"name": "widgets.ambit.test"},
        "spec": {
            "group": "ambit.test",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


def test_a_kind_whose_definition_comes_later(cluster: KubernetesHome, caplog: pytest.LogCaptureFixture) -> None:
    widget = Key("Widget", cluster.namespace, "w")

    async def create() -> None:
        obj = {"metadata": {"name": "w", "namespace": cluster.namespace}, "spec": {"size": 3}}
        async with asyncio.timeout(PATIENCE):
            while True:  # the server begins to serve a kind some time after it was defined
                with contextlib.suppress(StoreError):
                    await cluster.api.call(ensure, cluster.api, WIDGET, obj)
                    return
                await asyncio.sleep(0.05)

    async def scenario() -> None:
        async with watching(cluster.store(), cluster.namespace, (POD, WIDGET)) as watched:
            await cluster.api.call(ensure, cluster.api, DEFINITION, _definition())
            await create()
            applied = await watched.hears(APPLIED, widget)
            assert applied.object is not None
            assert applied.object["spec"] == {"size": 3}
            await cluster.api.call(cluster.api.delete, paths.of(DEFINITION, "widgets.ambit.test"))
            await watched.hears(DELETED, widget)

    run(scenario())
    said = [record.message for record in caplog.records if "has no kind Widget (ambit.test/v1)" in record.message]
    assert 1 <= len(said) <= 2, "when it is missing, and when it is missing again"


# --- ways that lead nowhere


@pytest.mark.parametrize("text", ["", "[", "{}", "a: b", "clusters: 7", "\x00"])
def test_a_kubeconfig_that_says_nothing_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(StoreError, match=rf"^{path} does not say how to reach an API server: "):
        KubernetesStore.connect(path)


def test_no_kubeconfig_and_no_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(StoreError, match="this pod's service account does not say how"):
        KubernetesStore.connect(None)
    with pytest.raises(StoreError, match="does not say how"):
        KubernetesStore.connect(tmp_path / "nowhere")


def test_a_server_that_somebody_else_pretends_to_be_is_not_believed(cluster: KubernetesHome, tmp_path: Path) -> None:
    """Its certificate is checked: the file trusts another CA."""
    text = cluster.server.kubeconfig().read_text()
    other = tmp_path / "ca.pem"
    other.write_bytes(made.Issuer.root().pem)
    path = tmp_path / "kubeconfig"
    path.write_text(text.replace(str(cluster.server.place / "certificates/apiserver.crt"), str(other)))
    with pytest.raises(StoreError, match="certificate verify failed"):
        run(KubernetesStore.connect(path).list(POD))


def test_a_token_that_nobody_knows_is_refused_in_words(cluster: KubernetesHome) -> None:
    stranger = KubernetesStore(cluster.server.api("somebody.elses.token"))
    with pytest.raises(StoreError, match=r"GET /api/v1/pods: Unauthorized \(401\)") as refusal:
        run(stranger.list(POD))
    assert "somebody" not in str(refusal.value)
