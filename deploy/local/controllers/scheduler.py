"""Pods get a node: the one that they name, or among those that fit the one that has the fewest of their kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from controller.store.interface import Object
from deploy.local.controllers.actions import Action, Delete, Merge, Picture, SetStatus
from deploy.local.controllers.deployments import HASH_LABEL
from deploy.local.objects import condition, condition_update, is_terminal, is_terminating, key, labels, namespace, uid


def reconcile(picture: Picture, now: str) -> Iterator[Action]:
    nodes = [each for each in picture.of("Node") if condition(each, "Ready")]
    pods = [each for each in picture.of("Pod") if not is_terminal(each) and not is_terminating(each)]
    yield from _without_a_node(picture)
    load = Counter(each["spec"].get("nodeName", "") for each in pods)
    peers = Counter((each["spec"].get("nodeName", ""), _group(each)) for each in pods)
    for pod in pods:
        if pod["spec"].get("nodeName"):
            yield from _check_name(pod, picture, now)
            continue
        fitting = [node for node in nodes if _fits(pod, node)]
        problem = _dangling(pod, picture) or _unfit(pod, nodes, fitting)
        if problem:
            yield from _unschedulable(pod, problem, now)
            continue
        chosen = min((node["metadata"]["name"] for node in fitting), key=_emptiest(pod, peers, load))
        load[chosen] += 1
        peers[chosen, _group(pod)] += 1
        yield Merge(key(pod), uid(pod), {"spec": {"nodeName": chosen}})


def _without_a_node(picture: Picture) -> Iterator[Action]:
    """Pods that are to end on a node that is not there: nobody else would finish their deletion."""
    for pod in picture.of("Pod"):
        if is_terminating(pod) and ("", pod["spec"].get("nodeName", "")) not in picture.names("Node"):
            yield Delete(key(pod))


def _emptiest(
    pod: Object, peers: Counter[tuple[str, str]], load: Counter[str]
) -> Callable[[str], tuple[int, int, str]]:
    return lambda name: (peers[name, _group(pod)], load[name], name)


def _group(pod: Object) -> str:
    """Pods of one group are spread over the nodes."""
    return f"{namespace(pod)}/{labels(pod).get(HASH_LABEL, pod['metadata']['name'])}"


def _fits(pod: Object, node: Object) -> bool:
    wanted = pod["spec"].get("nodeSelector") or {}
    return wanted.items() <= dict(labels(node)).items()


def _dangling(pod: Object, picture: Picture) -> str:
    """What the pod refers to and is not there: Kubernetes would not let it in. It may still come."""
    space, account = namespace(pod), pod["spec"].get("serviceAccountName") or "default"
    if ("", space) not in picture.names("Namespace"):
        return f"there is no namespace {space}"
    if (space, account) not in picture.names("ServiceAccount"):
        return f"spec.serviceAccountName: there is no service account {account} in namespace {space}"
    return ""


def _unfit(pod: Object, nodes: Sequence[Object], fitting: Sequence[Object]) -> str:
    if fitting:
        return ""
    if not nodes:
        return "no node is ready"
    return f"no node has the labels of spec.nodeSelector: {dict(pod['spec'].get('nodeSelector') or {})}"


def _check_name(pod: Object, picture: Picture, now: str) -> Iterator[Action]:
    name = pod["spec"]["nodeName"]
    if name not in {each["metadata"]["name"] for each in picture.of("Node")}:
        yield from _unschedulable(pod, f"spec.nodeName: there is no node {name}", now)


def _unschedulable(pod: Object, message: str, now: str) -> Iterator[Action]:
    conditions = condition_update(pod, "PodScheduled", False, "Unschedulable", message, now)
    if conditions is not None:
        yield SetStatus(key(pod), uid(pod), {"phase": "Pending", "conditions": conditions})
