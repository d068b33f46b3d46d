"""The views of a mesh that runs: each part is asked once, over its admin port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import msgspec

from cli.explain.views import NodeView
from cli.home import Home, NoAnswer, ask
from cli.waypoint import view as waypoints
from controller.compile import binding, gateways
from controller.compile.gateways import Traffic, Waypoint
from controller.store import kinds
from controller.store.gateway_shapes import Gateway
from controller.store.interface import Key, Kind, NotFound, Object, StoreError
from mesh.model.enrolment import REDIRECTION, REDIRECTION_ENABLED, decide
from mesh.model.ports import ADMIN
from mesh.model.state import MeshState
from mesh.model.update import MeshUpdate
from mesh.model.workload import Workload
from mesh.wire.routing import Routing
from waypoint.plan.world import Own, World


class LiveViews:
    """See views.Views."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._nodes: dict[str, NodeView] = {}
        self._worlds: dict[str, World] = {}

    def node(self, name: str) -> NodeView:
        if name not in self._nodes:
            if name not in self._home.nodes():
                raise NoAnswer(f"node {name or '(none)'} has no ztunnel")
            dump = ask(self._home, name, "/config_dump")
            mesh = _mesh(self._home.fetch(name, ADMIN, "/mesh"), f"ztunnel of {name}")
            self._nodes[name] = NodeView(name, mesh, _pods(dump, mesh))
        return self._nodes[name]

    def waypoint(self, pod: Workload) -> World:
        if pod.uid not in self._worlds:
            self._worlds[pod.uid] = self._read_world(pod)
        return self._worlds[pod.uid]

    def _read_world(self, pod: Workload) -> World:
        who = f"waypoint pod {pod.namespace}/{pod.name}"

        def fetch(path: str) -> bytes:
            return self._home.fetch_from_pod(pod.namespace, pod.name, ADMIN, path)

        mesh = _mesh(fetch("/mesh"), who)
        try:
            dump = json.loads(fetch("/config_dump"))
            gateway = str(dump["waypoint"]).rpartition("/")[2]
            routing = {name: msgspec.convert(each, Routing) for name, each in dump["routing"].items()}
        except (ValueError, KeyError, TypeError, msgspec.ValidationError) as problem:
            raise NoAnswer(f"{who} says what is not understood here: {problem}") from None
        world = World(Own(pod.namespace, gateway, pod.uid, pod.network, pod.identity))
        world.apply_mesh(mesh.snapshot())
        world.apply_routing(routing, ())
        world.known = bool(dump.get("known"))
        return world

    # --- why: from the objects

    def why_enrolled(self, namespace: str, name: str) -> str:
        pod, space = self.object(kinds.POD, name, namespace), self.object(kinds.NAMESPACE, namespace)
        if pod is None:
            return "its object cannot be read"
        annotations = pod["metadata"].get("annotations") or {}
        host = bool(pod["spec"].get("hostNetwork"))
        wanted = decide(namespace, _labels(space), _labels(pod), annotations, host)
        pending = wanted.wanted and annotations.get(REDIRECTION) != REDIRECTION_ENABLED
        return wanted.reason + (", but it has not been captured yet" if pending else "")

    def why_bound(self, kind: str, namespace: str, name: str) -> str:
        obj, space = self.object(kinds.named(kind), name, namespace), self.object(kinds.NAMESPACE, namespace)
        if obj is None:
            return ""
        of_account = self._of_account(namespace, obj) if kind == "Pod" else None
        wanted = Traffic.WORKLOAD if kind == "Pod" else Traffic.SERVICE
        labels = _labels(obj), _labels(space)
        found = binding.of_object(namespace, *labels, of_account, wanted, self._waypoints.get)
        # A Service without a label is bound where all its endpoints are of one service account.
        return found.source.value if found is not None else "the service account of all its endpoints"

    def _of_account(self, namespace: str, pod: Object) -> Waypoint | None:
        account = pod["spec"].get("serviceAccountName", "default")
        found = (each for each in self._waypoints.values() if (each.namespace, each.account) == (namespace, account))
        return next(found, None)

    @cached_property
    def _waypoints(self) -> Mapping[Key, Waypoint]:
        store = self._home.store()
        try:
            classes = waypoints.classes(asyncio.run(store.list(kinds.GATEWAY_CLASS)))
            found = asyncio.run(store.list(kinds.GATEWAY))
        except StoreError:
            return {}
        read = (gateways.read(msgspec.convert(each, Gateway), classes) for each in found)
        return {each.key: each for each in read if each is not None}

    def object(self, kind: Kind, name: str, namespace: str = "") -> Object | None:
        """None when there is none, or it may not be read."""
        try:
            return asyncio.run(self._home.store().get(kind, name, namespace))
        except NotFound:
            return None


def _labels(obj: Object | None) -> Mapping[str, str]:
    return (obj["metadata"].get("labels") or {}) if obj is not None else {}


def _mesh(answer: bytes, who: str) -> MeshState:
    try:
        return MeshState(msgspec.json.decode(answer, type=MeshUpdate))
    except msgspec.MsgspecError as problem:
        raise NoAnswer(f"{who} says what is not understood here: {problem}") from None


def _pods(dump: Mapping[str, Any], mesh: MeshState) -> Mapping[str, str]:
    """The pods that a ztunnel serves, by namespace/name, and their state."""
    states = dump.get("workloadState", {}).values()
    return {f"{info['namespace']}/{info['name']}": str(each["state"]) for each in states if (info := each.get("info"))}
