"""The homes that objects can have: whatever uses a store must not be able to tell them apart."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Protocol

from controller.store.directory import DirectoryStore
from controller.store.interface import Key, Store
from controller.store.kinds import NAMESPACE, POD
from controller.store.kubernetes import KubernetesStore, paths
from tests.store.apiserver import Server, ensure

_numbers = itertools.count(1)


class Home(Protocol):
    """`namespace` is there and belongs to one test."""

    namespace: str

    def store(self) -> Store:
        """One more user of the same objects."""

    async def end(self, pod: Key) -> None:
        """What a kubelet does once the containers of a deleted pod have stopped."""


class DirectoryHome:
    namespace = "shop"

    def __init__(self, root: Path) -> None:
        self._root = root

    def store(self) -> DirectoryStore:
        return DirectoryStore(self._root)

    async def end(self, pod: Key) -> None:
        await self.store().delete(pod)


class KubernetesHome:
    def __init__(self, server: Server) -> None:
        self.namespace = f"shop-{next(_numbers)}"
        self.server = server
        self.api = server.api()
        ensure(self.api, NAMESPACE, {"metadata": {"name": self.namespace}})

    def store(self, port: int | None = None, pod_node: str = "") -> KubernetesStore:
        return KubernetesStore(self.server.api(port=port), pod_node)

    async def end(self, pod: Key) -> None:
        await self.api.call(self.remove, pod)

    def remove(self, pod: Key) -> None:
        self.api.delete(paths.of(POD, pod.name, pod.namespace) + "?gracePeriodSeconds=0")


def pod(namespace: str, name: str = "web", image: str = "ambit/echo", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "main", "image": image}], **spec},
    }


def deployment(namespace: str, name: str = "web", image: str = "ambit/echo") -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": pod(namespace, name, image)["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    }
