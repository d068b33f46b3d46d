"""What the commands do to the objects of a mesh, wherever they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cli.errors import fail, warn
from cli.waypoint import view
from controller.compile.binding import USE_WAYPOINT, USE_WAYPOINT_NAMESPACE
from controller.store import kinds
from controller.store.interface import Key, Kind, NotFound, Object, Store
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE

GLANCE = 0.25  # seconds between looks at what is waited for

Tell = Callable[[str], None]


async def read(store: Store, namespace: str = "") -> tuple[Sequence[Object], view.Classes]:
    """The waypoints of a namespace, or of all. Raises StoreError."""
    classes = view.classes(await _all(store, (kinds.GATEWAY_CLASS,)))
    return view.waypoints(await store.list(kinds.GATEWAY, namespace), classes), classes


async def apply(store: Store, gateway: Object, enrol: bool, overwrite: bool) -> None:
    """Checks all before it writes anything. Raises StoreError, CommandFailed."""
    key = kinds.key_of(gateway)
    await _check_free(store, gateway)
    namespace = await store.get(kinds.NAMESPACE, key.namespace)
    labels = namespace["metadata"].get("labels") or {}
    present = labels.get(USE_WAYPOINT, key.name)
    if enrol and not overwrite and (present != key.name or USE_WAYPOINT_NAMESPACE in labels):
        fail(f"namespace {key.namespace} already has {USE_WAYPOINT}={present}; --overwrite changes it")
    await store.apply(gateway)
    if enrol:
        await store.change(kinds.key_of(namespace), lambda obj: _use(obj, key.name))
    if labels.get(DATAPLANE_MODE) != AMBIENT:
        warn(
            f"namespace {key.namespace} is not labelled {DATAPLANE_MODE}={AMBIENT}: only pods in the mesh use waypoints"
        )


async def _check_free(store: Store, gateway: Object) -> None:
    key = kinds.key_of(gateway)
    try:
        present = await store.get(kinds.GATEWAY, key.name, key.namespace)
    except NotFound:
        return
    if not view.waypoints([present], view.classes(await _all(store, (kinds.GATEWAY_CLASS,)))):
        fail(f"{key} is there already and is no waypoint (its class is {present['spec'].get('gatewayClassName')})")


def _use(obj: dict[str, Any], name: str) -> None:
    labels = obj["metadata"].setdefault("labels", {})
    labels[USE_WAYPOINT] = name
    labels.pop(USE_WAYPOINT_NAMESPACE, None)


async def until_programmed(store: Store, keys: Iterable[Key], patience: float, tell: Tell) -> Sequence[view.Condition]:
    """How these waypoints fare, once all are programmed or the time is over. Raises StoreError."""
    keys, loop = list(keys), asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        found = [view.condition(await store.get(kinds.GATEWAY, key.name, key.namespace)) for key in keys]
        behind = [each for each in found if not each.programmed]
        tell("; ".join(f"{each.namespace}/{each.name}: {each.message or each.reason}" for each in behind))
        if not behind or loop.time() >= deadline:
            return found
        await asyncio.sleep(GLANCE)


async def users(store: Store, gone: Iterable[Key]) -> Sequence[Key]:
    """Whose label names one of these waypoints."""
    objects = await _all(store, (kinds.NAMESPACE, kinds.SERVICE, kinds.POD))
    return sorted(view.users(objects, set(gone)))


async def delete(store: Store, keys: Iterable[Key]) -> None:
    for key in keys:
        await store.delete(key)


async def remove_labels(store: Store, keys: Iterable[Key]) -> None:
    for key in keys:
        await store.change(key, _use_none)


def _use_none(obj: dict[str, Any]) -> None:
    for name in (USE_WAYPOINT, USE_WAYPOINT_NAMESPACE):
        (obj["metadata"].get("labels") or {}).pop(name, None)


async def _all(store: Store, wanted: Iterable[Kind]) -> list[Object]:
    found: list[Object] = []
    for kind in wanted:
        try:
            found += await store.list(kind)
        except NotFound:
            if not kind.optional:
                raise
    return found
