"""The store in a Kubernetes API server: the same objects, read and written as `kubectl` would."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from controller.store import kinds, merge
from controller.store.interface import Conflict, Event, Key, Kind, NotFound, Object
from controller.store.kubernetes import connection, patch, paths, watching
from controller.store.kubernetes.api import APPLY_PATCH, ApiServer
from controller.store.kubernetes.health import Health
from controller.store.kubernetes.known import clean
from controller.store.kubernetes.listing import list_pages
from controller.store.kubernetes.versions import Versions

Edit = Callable[[dict[str, Any]], None]

FIELD_MANAGER = "ambit"
_TRIES = 12  # of a change that others keep overtaking: some seconds in all
_LONGEST_PAUSE = 0.5
_KEPT_BY_THE_SERVER = ("uid", "creationTimestamp", "generation", "managedFields", "selfLink")


class KubernetesStore:
    """A `Store`. Requests wait on threads; nothing is kept but what watchers need."""

    def __init__(self, server: ApiServer, pod_node: str = "", pod_labels: str = "") -> None:
        """`pod_node`, `pod_labels`: list and watch only the pods of this node, of this label selector."""
        self.server = server
        self._health = Health()
        self._versions = Versions()
        node = {"fieldSelector": f"spec.nodeName={pod_node}"} if pod_node else {}
        chosen = node | ({"labelSelector": pod_labels} if pod_labels else {})
        self._queries = {kinds.POD: chosen} if chosen else {}

    @classmethod
    def connect(
        cls, kubeconfig: Path | None, context: str = "", *, pod_node: str = "", pod_labels: str = ""
    ) -> KubernetesStore:
        """Without a file: KUBECONFIG's, else this pod's service account. Raises StoreError."""
        return cls(connection.connect(kubeconfig, context), pod_node, pod_labels)

    async def list(self, kind: Kind, namespace: str = "") -> tuple[Object, ...]:
        return await self.server.call(self._list, kind, namespace)

    def watch(self, kinds: tuple[Kind, ...]) -> AsyncIterator[Event]:
        return watching.watch(self.server, kinds, self._queries, self._health, self._versions)

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        return await self.server.call(self._get, kind, Key(kind.kind, namespace if kind.namespaced else "", name))

    async def apply(self, obj: Object) -> Object:
        return await self.server.call(self._apply, obj)

    async def change(self, key: Key, edit: Edit) -> Object:
        return await self.server.call(self._change, key, edit, False)

    async def change_status(self, key: Key, edit: Edit) -> Object:
        return await self.server.call(self._change, key, edit, True)

    async def delete(self, key: Key) -> None:
        await self.server.call(self._delete, key)

    async def problems(self) -> tuple[str, ...]:
        """What keeps watches from following: a sentence each."""
        return self._health.problems()

    # --- the same, blocking

    def _list(self, kind: Kind, namespace: str) -> tuple[Object, ...]:
        found: dict[str, Object] = {}  # by uid: a list may show some twice

        def take(items: list[Any]) -> None:
            found.update((item["metadata"]["uid"], clean(kind, item)) for item in items)

        path = paths.collection(self._versions.served(kind), namespace)
        list_pages(self.server, path, self._queries.get(kind, {}), take)
        return tuple(found.values())

    def _get(self, kind: Kind, key: Key) -> Object:
        try:
            return clean(kind, self.server.get(paths.of(self._versions.served(kind), key.name, key.namespace)))
        except NotFound as error:
            raise NotFound(f"there is no {key}") from error

    def _apply(self, obj: Object) -> Object:
        key = kinds.key_of(obj)
        kind = kinds.named(key.kind)
        manifest = {name: value for name, value in merge.plain(obj).items() if name != "status"}
        for name in _KEPT_BY_THE_SERVER:
            manifest["metadata"].pop(name, None)
        (manifest["metadata"].get("annotations") or {}).pop(merge.LAST_APPLIED, None)
        if key.namespace:
            manifest["metadata"]["namespace"] = key.namespace
        version = obj["apiVersion"].rpartition("/")[2]
        path = paths.of(kind.in_version(version), key.name, key.namespace)
        # force: what the manifest says is set, whoever said something else before.
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return clean(kind, self.server.patch(path, manifest, APPLY_PATCH, query))

    def _change(self, key: Key, edit: Edit, status: bool) -> Object:
        for number in range(1, _TRIES):
            try:
                return self._try_change(key, edit, status)
            except Conflict:
                time.sleep(random.random() * min(_LONGEST_PAUSE, 0.01 * 2**number))
        return self._try_change(key, edit, status)

    def _try_change(self, key: Key, edit: Edit, status: bool) -> Object:
        kind = kinds.named(key.kind)
        before = self._get(kind, key)
        after = merge.plain(before)
        edit(after)
        changed = patch.difference(before, merge.edited(before, after, status))
        if not changed:
            return before
        path = paths.of(self._versions.served(kind), key.name, key.namespace, "status" if status else "")
        try:
            answer = self.server.patch(path, patch.guarded(before, changed), query={"fieldManager": FIELD_MANAGER})
        except NotFound as error:
            raise NotFound(f"there is no {key}" + (", or it has no status" if status else "")) from error
        return clean(kind, answer)

    def _delete(self, key: Key) -> None:
        try:
            kind = self._versions.served(kinds.named(key.kind))
            self.server.delete(paths.of(kind, key.name, key.namespace))
        except NotFound as error:
            raise NotFound(f"there is no {key}") from error
