"""`ambit local label` while pods cannot be enrolled: it says why, and names them when it gives up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cli.errors import CommandFailed
from cli.local import edit
from controller.store.directory import DirectoryStore
from controller.store.interface import Key
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE, REDIRECTION, REDIRECTION_ENABLED, REDIRECTION_REASON

SHOP = Key("Namespace", "", "shop")
WHY = "ztunnel is not connected"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A labelled namespace with two running pods, of which one has a reason not to be enrolled yet."""
    found = DirectoryStore(tmp_path)
    namespace = {"apiVersion": "v1", "kind": "Namespace"}
    labels = {DATAPLANE_MODE: AMBIENT}
    asyncio.run(_prepare(found, {**namespace, "metadata": {"name": "shop", "labels": labels}}))
    return found


async def _prepare(store: DirectoryStore, namespace: dict[str, Any]) -> None:
    await store.apply(namespace)
    for name, written in (("web", {REDIRECTION_REASON: WHY}), ("till", {})):
        metadata = {"name": name, "namespace": "shop", "annotations": written}
        spec = {"nodeName": "node1", "containers": [{"name": "app", "image": "ambit/echo"}]}
        await store.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        await store.change_status(Key("Pod", "shop", name), lambda pod: pod.update(status={"phase": "Running"}))


def test_it_gives_up_with_the_pods_and_their_reasons(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit, "PATIENCE", 0.0)
    told: list[str] = []
    with pytest.raises(CommandFailed, match=f"web: {WHY}"):
        asyncio.run(edit.wait_enrolled(store, SHOP, told.append))
    assert set(told) == {f"web: {WHY}"}


def test_without_a_reason_it_names_the_pods(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edit, "PATIENCE", 0.0)
    asyncio.run(store.change(Key("Pod", "shop", "web"), _enrol))
    with pytest.raises(CommandFailed, match="not yet as labelled; till; see ambit status"):
        asyncio.run(edit.wait_enrolled(store, SHOP, lambda _: None))


def test_it_ends_when_the_last_pod_is_enrolled(store: DirectoryStore) -> None:
    """The pods are enrolled while it waits."""
    told: list[str] = []
    begun = asyncio.Event()

    def tell(why: str) -> None:
        told.append(why)
        begun.set()

    async def wait() -> None:
        waiting = asyncio.create_task(edit.wait_enrolled(store, SHOP, tell))
        await begun.wait()
        for name in ("web", "till"):
            await store.change(Key("Pod", "shop", name), _enrol)
        await waiting

    asyncio.run(wait())
    assert (told[0], told[-1]) == (f"web: {WHY}", "")


def _enrol(pod: dict[str, Any]) -> None:
    pod["metadata"]["annotations"] = {REDIRECTION: REDIRECTION_ENABLED}
