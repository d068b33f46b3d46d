"""What only a store in a directory is: files that people write, for several processes (the rest: test_contract)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.store import watching as watching_module
from controller.store.directory import DirectoryStore
from controller.store.interface import Change, Event, Key, StoreError
from controller.store.kinds import ENDPOINT_SLICE, NAMESPACE, POD, key_of
from tests.store.watched import PATIENCE, run, watching


def namespace(name: str = "shop", **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(name: str = "web", image: str = "ambit/echo") -> dict[str, Any]:
    spec = {"containers": [{"name": "main", "image": image}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


WEB = Key("Pod", "shop", "web")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "objects")


# --- objects


def test_an_applied_object_is_a_readable_file_and_comes_back(store: DirectoryStore) -> None:
    async def scenario() -> None:
        applied = await store.apply(pod())
        assert await store.get(POD, "web", "shop") == applied
        assert await store.list(POD) == (applied,) == await store.list(POD, "shop")
        assert await store.list(POD, "elsewhere") == ()

    run(scenario())
    text = (store.root / "pods/shop/web.yaml").read_text()
    assert text.startswith("apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n")


def test_what_the_mesh_wrote_survives_the_manifest_being_applied_again(store: DirectoryStore) -> None:
    async def scenario() -> None:
        await store.apply(pod())

        def enrol(obj: dict[str, Any]) -> None:
            obj["metadata"]["annotations"]["ambient.istio.io/redirection"] = "enabled"
            obj["spec"]["nodeName"] = "node1"

        await store.change(WEB, enrol)
        again = await store.apply(pod())
        assert again["metadata"]["annotations"]["ambient.istio.io/redirection"] == "enabled"
        assert again["spec"]["nodeName"] == "node1"

    run(scenario())


def test_a_malformed_object_is_refused_and_nothing_is_written(store: DirectoryStore) -> None:
    with pytest.raises(StoreError, match=r"^Pod shop/web: spec.containers: must be a list, not 3$"):
        run(store.apply(pod() | {"spec": {"containers": 3}}))
    run(store.apply(pod()))
    with pytest.raises(StoreError, match=r"^Pod shop/web: spec.containers: "):
        run(store.change(WEB, lambda obj: obj["spec"].update(containers=3)))
    with pytest.raises(StoreError, match=r"Pod shop/web: metadata.name cannot be changed"):
        run(store.change(WEB, lambda obj: obj["metadata"].update(name="other")))
    assert run(store.get(POD, "web", "shop"))["spec"] == pod()["spec"]


def test_changes_of_several_processes_are_all_kept(store: DirectoryStore) -> None:
    run(store.apply(namespace(count="0")))
    program = (
        "import asyncio, sys\n"
        "from controller.store.directory import DirectoryStore\n"
        "from controller.store.interface import Key\n"
        "def edit(obj):\n"
        "    labels = obj['metadata']['labels']\n"
        "    labels['count'] = str(int(labels['count']) + 1)\n"
        "async def main():\n"
        "    store = DirectoryStore(sys.argv[1])\n"
        "    for _ in range(25): await store.change(Key('Namespace', '', 'shop'), edit)\n"
        "asyncio.run(main())\n"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, str(store.root)]) for _ in range(3)]
    assert [writer.wait(PATIENCE) for writer in writers] == [0, 0, 0]
    assert run(store.get(NAMESPACE, "shop"))["metadata"]["labels"]["count"] == "75"


def test_a_store_that_vanished_is_not_an_empty_one(store: DirectoryStore) -> None:
    async def scenario() -> None:
        await store.apply(namespace())
        async with watching(store) as watched:
            shutil.rmtree(store.root)
            with pytest.raises(StoreError, match=r"the store directory .* is gone"):
                await watched.until(lambda events: False)
        with pytest.raises(StoreError, match="is gone"):
            await store.list(NAMESPACE)

    run(scenario())


# --- watching


def test_only_the_kinds_asked_for_are_delivered_and_namespaces_may_come_later(store: DirectoryStore) -> None:
    async def scenario() -> None:
        async with watching(store) as watched:
            slice_ = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
            await store.apply(slice_ | {"metadata": {"name": "s", "namespace": "shop"}})
            await store.apply(pod())
            await watched.until(lambda events: events)
            assert [event.key for event in watched.events] == [WEB]
        assert len(await store.list(ENDPOINT_SLICE)) == 1

    run(scenario())


def test_an_object_replaced_by_another_of_the_same_name_is_deleted_first(store: DirectoryStore) -> None:
    async def scenario() -> None:
        await store.apply(pod())
        async with watching(store) as watched:
            text = (store.root / "pods/shop/web.yaml").read_text()
            uid = (await store.get(POD, "web", "shop"))["metadata"]["uid"]
            (store.root / "pods/shop/web.yaml").write_text(text.replace(uid, "another"))
            await watched.until(lambda events: len(events) >= 2)
            assert [event.change for event in watched.events] == [Change.DELETED, Change.APPLIED]

    run(scenario())


def test_many_changes_at_once_are_all_seen(store: DirectoryStore) -> None:
    """More notices than the kernel's queue holds (16,384), so that it overflows."""

    async def scenario() -> None:
        await store.apply(pod())
        path = store.root / "pods/shop/web.yaml"
        text = path.read_text()
        async with watching(store) as watched:
            for number in range(3_000):  # a loop without await: the watcher cannot read
                for name in (f"extra{number % 300}", "web"):
                    (path.parent / f".{name}.tmp").write_text(
                        text.replace("name: web", f"name: {name}").replace("ambit/echo", f"image{number}")
                    )
                    os.replace(path.parent / f".{name}.tmp", path.parent / f"{name}.yaml")
            latest: dict[Key, Any] = {}

            def complete(events: list[Event]) -> bool:
                latest.update({event.key: event.object for event in events if event.key})
                images = {key.name: obj["spec"]["containers"][0]["image"] for key, obj in latest.items()}
                return len(images) == 301 and images["web"] == "image2999" and images["extra299"] == "image2999"

            await watched.until(complete)

    run(scenario())


_steps = st.lists(
    st.tuples(
        st.sampled_from(["apply", "label", "delete", "write", "break", "move away", "remove namespace"]),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 3),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
def test_what_a_watcher_was_told_is_what_is_there(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    """Two stores on one directory and somebody with an editor, all at once."""

    async def scenario() -> None:
        watched = DirectoryStore(tmp_path_factory.mktemp("objects"))
        other = DirectoryStore(watched.root)
        told: dict[Key | None, Any] = {}

        async def listen() -> None:
            async for event in watched.watch((POD,)):
                if event.change is Change.DELETED:
                    del told[event.key]
                elif event.key:
                    told[event.key] = event.object

        listening = asyncio.create_task(listen())
        for number, (what, name, value) in enumerate(steps):
            await _do(watched if number % 2 else other, what, name, value)
        await other.apply(pod("last"))

        async def same() -> bool:
            there = {key_of(obj): obj for obj in await other.list(POD)}
            return {**told, **dict.fromkeys(broken)} == {**there, **dict.fromkeys(broken)}

        # Of a broken file a watcher keeps what it last saw, which depends on when it looked.
        files = {Key("Pod", "shop", name): watched.root / f"pods/shop/{name}.yaml" for name in "abc"}
        broken = [key for key, path in files.items() if path.exists() and path.read_text().startswith("[")]
        while not await same():
            assert not listening.done()
            await asyncio.sleep(0.01)
        listening.cancel()

    run(scenario())


async def _do(store: DirectoryStore, what: str, name: str, value: int) -> None:
    path = store.root / f"pods/shop/{name}.yaml"
    with contextlib.suppress(StoreError, OSError):
        match what:
            case "apply":
                await store.apply(pod(name, f"image{value}"))
            case "label":
                await store.change(
                    Key("Pod", "shop", name), lambda obj: obj["metadata"].update(labels={"value": str(value)})
                )
            case "delete":
                await store.delete(Key("Pod", "shop", name))
            case "write":
                path.write_text(json.dumps(pod(name, f"hand{value}")))
            case "break":
                path.write_text("[" * (value + 1))
            case "move away":
                path.rename(path.with_suffix(".bak"))
            case "remove namespace":
                shutil.rmtree(path.parent)


# --- hands


def test_a_file_made_by_hand_is_an_object(store: DirectoryStore) -> None:
    async def scenario() -> None:
        async with watching(store) as watched:
            path = store.root / "namespaces/_cluster/shop.yaml"
            path.parent.mkdir(parents=True)
            path.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
            event = await watched.hears(Change.APPLIED, Key("Namespace", "", "shop"))
            assert event.object is not None
            uid = event.object["metadata"]["uid"]
            assert (await DirectoryStore(store.root).get(NAMESPACE, "shop"))["metadata"]["uid"] == uid
            await store.change(Key("Namespace", "", "shop"), lambda obj: obj["metadata"].update(labels={"a": "b"}))
            assert (await watched.hears(Change.APPLIED, Key("Namespace", "", "shop"))).object["metadata"]["uid"] == uid  # type: ignore[index]

    run(scenario())


def test_a_file_broken_by_hand_keeps_its_last_good_object_until_it_is_mended(
    store: DirectoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        await store.apply(pod())
        path = store.root / "pods/shop/web.yaml"
        text = path.read_text()
        async with watching(store) as watched:
            path.write_text(text.replace("- name: main", "- name: [main"))
            await store.apply(pod("other"))
            await watched.hears(Change.APPLIED, Key("Pod", "shop", "other"))
            (problem,) = await store.problems()
            assert problem.startswith(f"{path}:")
            assert (await store.get(POD, "web", "shop"))["metadata"]["name"] == "web"
            with pytest.raises(StoreError, match=r"web.yaml:"):
                await store.change(WEB, lambda obj: None)
            path.write_text(text.replace("ambit/echo", "mended"))
            event = await watched.hears(Change.APPLIED, WEB)
            assert event.object is not None
            assert event.object["spec"]["containers"][0]["image"] == "mended"
            assert await store.problems() == ()

    run(scenario())
    assert len([record for record in caplog.records if "web.yaml" in record.message]) == 1


def test_an_editor_that_moves_the_file_away_while_saving_deletes_nothing(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching_module, "MOVED_AWAY_GRACE", 600.0)

    async def scenario() -> None:
        await store.apply(pod())
        path = store.root / "pods/shop/web.yaml"
        async with watching(store) as watched:
            text = path.read_text()
            path.rename(path.with_suffix(".yaml~"))
            await store.apply(pod("other"))
            await watched.until(lambda events: events)
            path.write_text(text.replace("ambit/echo", "edited"))
            await watched.until(lambda events: len(events) == 2)
            assert [event.change for event in watched.events] == [Change.APPLIED, Change.APPLIED]

    run(scenario())


def test_a_file_that_was_moved_away_and_stays_away_is_deleted(store: DirectoryStore) -> None:
    async def scenario() -> None:
        await store.apply(pod())
        async with watching(store) as watched:
            (store.root / "pods/shop/web.yaml").rename(store.root / "elsewhere")
            await watched.hears(Change.DELETED, WEB)

    run(scenario())


@pytest.mark.parametrize(
    ("path", "content", "sentence"),
    [
        ("pods/shop/a.yaml", "", "holds no objects; one file holds one"),
        ("pods/shop/a.yaml", "\xff", "is not UTF-8 text"),
        ("pods/shop/a.yaml", "kind: Pad\napiVersion: v1\nmetadata: {name: a}", "unknown kind Pad"),
        (
            "pods/shop/a.yaml",
            "kind: Node\napiVersion: v1\nmetadata: {name: a}",
            "holds a Node, which does not belong",
        ),
        (
            "nodes/_cluster/a.yaml",
            "kind: Node\napiVersion: v1\nmetadata: {name: b}",
            "holds Node b, which does not",
        ),
        ("pods/shop/a.json", "{}", "is not read (objects are in files NAME.yaml)"),
        ("pods/a.yaml", "", "is not read (objects are in pods/NAMESPACE/NAME.yaml)"),
        ("widgets/shop/a.yaml", "", "is not read (no kind has this directory)"),
    ],
)
def test_garbage_is_named_and_disturbs_nothing(store: DirectoryStore, path: str, content: str, sentence: str) -> None:
    async def scenario() -> None:
        file = store.root / path
        file.parent.mkdir(parents=True)
        file.write_bytes(content.encode("latin-1"))
        await store.apply(pod())
        (problem,) = await store.problems()
        assert sentence in problem
        assert str(store.root) in problem
        assert len(await store.list(POD)) == 1
        async with watching(store):
            pass

    run(scenario())
