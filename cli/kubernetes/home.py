"""Ambit on a cluster: finds what the chart has made by the names of its DaemonSet and Deployment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from kubernetes.client import ApiClient, AppsV1Api, CoreV1Api

from cli.errors import CommandFailed, fail
from cli.home import NoAnswer, NoRight, Part
from cli.kubernetes.access import Access
from cli.kubernetes.parts import CONTROLLER, NODE_DAEMON, Pod, node_pods, parts, ready_pods, shortfalls
from cli.kubernetes.pods import http_answer, output
from controller.store import kinds
from controller.store.interface import Kind, Object, Store
from controller.store.kubernetes import KubernetesStore
from controller.store.kubernetes.api import ApiServer

AGENT = "agent"  # the container of a node pod that has Python's ebpf package and the pins
REPORT = ("python", "-m", "ebpf.report")
PAGE = 500  # objects per answer, as kubectl has it

Read = Callable[[ApiClient, Mapping[str, Any]], Any]


class KubernetesHome:
    """See cli.home.Home. `namespace` is the one of the chart."""

    def __init__(self, access: Access, namespace: str) -> None:
        self._access, self._namespace = access, namespace

    def nodes(self) -> Sequence[str]:
        return sorted(self._by_node)

    def controllers(self) -> Sequence[str]:
        return sorted(self._controllers)

    def parts(self) -> Mapping[str, Part]:
        return parts([*self._controller_pods, *self._node_pods])

    def problems(self) -> Sequence[str]:
        return shortfalls(self._daemon_set, self._deployment)

    def objects(self, kind: Kind, namespace: str = "") -> Sequence[Object]:
        match kind, namespace:
            case kinds.NAMESPACE, _:
                return self._list("list namespaces", lambda api, options: CoreV1Api(api).list_namespace(**options))
            case kinds.POD, "":
                return self._list(
                    "list pods of all namespaces",
                    lambda api, options: CoreV1Api(api).list_pod_for_all_namespaces(**options),
                )
            case kinds.POD, _:
                return self._pods(namespace, "")
        raise ValueError(f"{kind.plural} are not read here")

    def store(self) -> Store:
        return KubernetesStore(ApiServer(self._access.client()))

    def fetch(self, place: str, port: int, path: str) -> bytes:
        pod = self._by_node.get(place) or self._controllers[place]
        who = f"ztunnel of {place}" if place in self._by_node else f"the controller {place}"
        _require_running(who, pod)
        try:
            return http_answer(self._access, pod, port, path)
        except NoRight:
            raise
        except NoAnswer as problem:
            raise NoAnswer(f"{who} does not answer on 127.0.0.1:{port}: {problem}") from None

    def fetch_from_pod(self, namespace: str, pod: str, port: int, path: str) -> bytes:
        try:
            return http_answer(self._access, Pod(namespace, pod, ""), port, path)
        except NoRight:
            raise
        except NoAnswer as problem:
            raise NoAnswer(f"pod {namespace}/{pod} does not answer on 127.0.0.1:{port}: {problem}") from None

    def kernel(self, node: str) -> Mapping[str, Any]:
        pod = self._by_node[node]
        _require_running(f"the agent of {node}", pod)
        try:
            found: Mapping[str, Any] = json.loads(output(self._access, pod, AGENT, REPORT))
        except NoRight:
            raise
        except (NoAnswer, ValueError) as problem:
            raise NoAnswer(f"the agent of {node} does not answer: {problem}") from None
        return found

    # --- what is installed; read once per command

    @cached_property
    def _daemon_set(self) -> Object:
        name, space = NODE_DAEMON, self._namespace
        return self._installed(lambda api, options: AppsV1Api(api).read_namespaced_daemon_set(name, space, **options))

    @cached_property
    def _deployment(self) -> Object:
        name, space = CONTROLLER, self._namespace
        return self._installed(lambda api, options: AppsV1Api(api).read_namespaced_deployment(name, space, **options))

    @cached_property
    def _node_pods(self) -> Sequence[Object]:
        return self._of_owner(self._daemon_set)

    @cached_property
    def _controller_pods(self) -> Sequence[Object]:
        return self._of_owner(self._deployment)

    @cached_property
    def _by_node(self) -> Mapping[str, Pod]:
        return node_pods(self._node_pods)

    @cached_property
    def _controllers(self) -> Mapping[str, Pod]:
        return {pod.name: pod for pod in ready_pods(self._controller_pods)}

    def _installed(self, read: Read) -> Object:
        try:
            found: Object = self._access.read(f"read what is installed in namespace {self._namespace}", read)
        except NoAnswer as problem:
            if "not found" not in str(problem):
                raise CommandFailed(str(problem)) from None
            fail(
                f"Ambit is not installed in namespace {self._namespace} of {self._access.context}: install it with "
                "ambit install, or name its namespace with --system-namespace"
            )
        return found

    def _of_owner(self, owner: Object) -> Sequence[Object]:
        labels = owner["spec"]["selector"].get("matchLabels") or {}
        try:
            return self._pods(self._namespace, ",".join(f"{name}={value}" for name, value in labels.items()))
        except NoAnswer as problem:
            raise CommandFailed(str(problem)) from None

    def _pods(self, namespace: str, selector: str) -> Sequence[Object]:
        return self._list(
            f"list pods of namespace {namespace}",
            lambda api, options: CoreV1Api(api).list_namespaced_pod(namespace, label_selector=selector, **options),
        )

    def _list(self, what: str, read: Read) -> Sequence[Object]:
        found: list[Object] = []
        onward: Mapping[str, Any] = {"limit": PAGE}
        while onward:
            page = self._access.read(what, _with(read, onward))
            found += page.get("items") or ()
            following = page.get("metadata", {}).get("continue")
            onward = {"limit": PAGE, "_continue": following} if following else {}
        return found


def _require_running(who: str, pod: Pod) -> None:
    if pod.phase != "Running":
        raise NoAnswer(f"{who} does not run: pod {pod.name} is {pod.phase}")


def _with(read: Read, more: Mapping[str, Any]) -> Read:
    return lambda api, options: read(api, {**options, **more})
