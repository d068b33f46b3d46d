"""What the chart's pods are, as parts of the mesh. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.home import Part
from controller.store.interface import Object

NODE_DAEMON = "ambit-node"  # DaemonSet
CONTROLLER = "ambit-controller"  # Deployment


@dataclass(frozen=True, slots=True)
class Pod:
    """Where to knock."""

    namespace: str
    name: str
    node: str
    phase: str = "Running"


def parts(pods: Iterable[Object]) -> Mapping[str, Part]:
    """One per container, by pod/container; init containers only while they keep the others waiting."""
    found = {}
    for pod in pods:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        statuses = [*filter(_holds_up, status.get("initContainerStatuses") or ()), *_of_containers(pod)]
        for each in statuses:
            found[f"{name}/{each['name']}"] = _part(each, pod["spec"].get("nodeName", ""))
    return found


def node_pods(pods: Iterable[Object]) -> Mapping[str, Pod]:
    """By node. Where an update has two, the younger one that is not on its way out."""
    chosen: dict[str, Pod] = {}
    for each in sorted(pods, key=lambda pod: (not _is_leaving(pod), _created(pod))):
        if each["spec"].get("nodeName"):
            chosen[each["spec"]["nodeName"]] = _pod(each)
    return chosen


def ready_pods(pods: Iterable[Object]) -> Sequence[Pod]:
    return [_pod(each) for each in pods if _is_running(each) and not _is_leaving(each)]


def shortfalls(daemon_set: Object, deployment: Object) -> Sequence[str]:
    """Where there are fewer pods than wanted."""
    return [
        *_short(NODE_DAEMON, "nodes have", daemon_set, "currentNumberScheduled", "desiredNumberScheduled"),
        *_short(CONTROLLER, "replicas have", deployment, "replicas", ""),
    ]


def _short(name: str, noun: str, owner: Object, present: str, wanted: str) -> Iterator[str]:
    status = owner.get("status", {})
    want = int(status.get(wanted, 0)) if wanted else int(owner["spec"].get("replicas", 1))
    have = int(status.get(present, 0))
    if have < want:
        yield f"{have} of {want} {noun} a pod of {name}: see kubectl -n {owner['metadata']['namespace']} get events"


def _of_containers(pod: Object) -> Iterator[Mapping[str, Any]]:
    """Also of those that the kubelet has not told of: a pod without a node has no statuses."""
    told = {each["name"]: each for each in pod.get("status", {}).get("containerStatuses") or ()}
    reason = pod.get("status", {}).get("reason") or pod.get("status", {}).get("phase") or "Pending"
    for container in pod["spec"]["containers"]:
        name = container["name"]
        yield told.get(name) or {"name": name, "state": {"waiting": {"reason": reason}}}


def _holds_up(status: Mapping[str, Any]) -> bool:
    return bool(status.get("state", {}).get("terminated", {}).get("exitCode") != 0)


def _part(status: Mapping[str, Any], node: str) -> Part:
    state, last = status.get("state", {}), status.get("lastState", {}).get("terminated")
    running = "running" in state
    end = state.get("terminated") or last
    began = int(status.get("restartCount", 0)) + (0 if "waiting" in state and not last else 1)
    return Part(running, _spoken(state), node, began, _ending(end) if end else "")


def _spoken(state: Mapping[str, Any]) -> str:
    if "running" in state:
        return "running"
    found = state.get("waiting") or state.get("terminated") or {}
    return str(found.get("reason") or "not running")


def _ending(end: Mapping[str, Any]) -> str:
    how = f"signal {end['signal']}" if end.get("signal") else f"exit code {end.get('exitCode', '?')}"
    last_words = str(end.get("message") or "").strip().rpartition("\n")[2]
    return f"{how}: {last_words}" if last_words else f"{end.get('reason', 'ended')}, {how}"


def _pod(pod: Object) -> Pod:
    metadata, phase = pod["metadata"], pod.get("status", {}).get("phase", "Pending")
    return Pod(metadata["namespace"], metadata["name"], pod["spec"].get("nodeName", ""), phase)


def _is_running(pod: Object) -> bool:
    return bool(pod.get("status", {}).get("phase") == "Running")


def _is_leaving(pod: Object) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def _created(pod: Object) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))
