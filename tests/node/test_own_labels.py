"""What the CNI plugin is left to go by, where pods come into the mesh by a label of their own."""

from __future__ import annotations

import asyncio

import pytest

from controller.store.interface import Key
from mesh.model.enrolment import DATAPLANE_MODE
from tests.node.test_process import Machine, machine
from tests.node.test_zds import until

__all__ = ["machine"]
pytestmark = pytest.mark.root


async def labelled_pod(machine: Machine, namespace: str, node: str, mode: str) -> None:
    spec = {"nodeName": node, "containers": [{"name": "main", "image": "none"}]}
    metadata = {"name": "web", "namespace": namespace, "labels": {DATAPLANE_MODE: mode}}
    await machine.store.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def named(machine: Machine) -> set[str]:
    """As the plugin reads it: whole lines."""
    return set(machine.file.read_text().splitlines()) if machine.file.exists() else set()


def test_a_namespace_is_remembered_after_its_only_labelled_pod_on_another_node(machine: Machine) -> None:
    async def story() -> None:
        for namespace in ("shop", "lab", "quiet"):
            await machine.label(namespace, False)
        await labelled_pod(machine, "quiet", "node2", "none")
        async with machine.agent():
            await labelled_pod(machine, "lab", "node2", "ambient")
            await until(lambda: "lab" in named(machine))
            await machine.store.delete(Key("Pod", "lab", "web"))
            await machine.label("shop", True)
            await until(lambda: "shop" in named(machine))
            assert "lab" in named(machine)
        async with machine.agent():
            await machine.label("shop", False)
            await until(lambda: "shop" not in named(machine))
            assert "lab" in named(machine)
            await machine.store.delete(Key("Namespace", "", "lab"))
            await until(lambda: "lab" not in named(machine))
            assert "quiet" not in named(machine)

    asyncio.run(story())
