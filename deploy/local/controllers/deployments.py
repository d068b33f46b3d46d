"""Deployments become pods: scaled, rolled over when the template changes, collected when the deployment goes.

There are no ReplicaSet objects in between, but pods look as if there were: name, `pod-template-hash` and owner are what
Kubernetes gives them, so what derives a workload's name from them gets the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.store.interface import Object
from deploy.local.controllers.actions import Action, Apply, Delete, Picture, SetStatus
from deploy.local.objects import condition, condition_update, is_terminal, is_terminating, key, labels, namespace, uid

HASH_LABEL = "pod-template-hash"
# Kubernetes' alphabet for generated names (apimachinery/pkg/util/rand): no vowels, so no words.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX_LENGTH = 5
DEFAULT_SHARE = "25%"  # of maxSurge and maxUnavailable


def reconcile(picture: Picture, chance: str, now: str) -> Iterator[Action]:
    """`chance` is random text: names of pods are made from it."""
    deployments = {uid(each): each for each in picture.of("Deployment") if not is_terminating(each)}
    pods: dict[str, list[Object]] = {each: [] for each in deployments}
    for pod in picture.of("Pod"):
        owner = _owner(pod)
        if owner in pods:
            pods[owner].append(pod)
        elif owner is not None and not is_terminating(pod):
            yield Delete(key(pod))
    for owner, deployment in deployments.items():
        yield from _one(deployment, pods[owner], chance, now)


def template_hash(deployment: Object) -> str:
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return _encode(text, 10)


def _one(deployment: Object, pods: Sequence[Object], chance: str, now: str) -> Iterator[Action]:
    living = [pod for pod in pods if not is_terminating(pod) and not is_terminal(pod)]
    yield from (Delete(key(pod)) for pod in pods if is_terminal(pod) and not is_terminating(pod))
    current = template_hash(deployment)
    new = [pod for pod in living if labels(pod).get(HASH_LABEL) == current]
    old = [pod for pod in living if labels(pod).get(HASH_LABEL) != current]
    wanted = int(deployment["spec"].get("replicas", 1))
    create, delete = _step(wanted, new, old, _room(deployment, wanted))
    for index in range(create):
        yield Apply(_pod(deployment, current, _encode(f"{uid(deployment)} {chance} {index}", SUFFIX_LENGTH)))
    yield from (Delete(key(pod)) for pod in delete)
    yield from _status(deployment, new, old, now)


def _step(wanted: int, new: Sequence[Object], old: Sequence[Object], room: tuple[int, int]) -> tuple[int, list[Object]]:
    """How many pods to create and which to delete now, never having too many or too few of them ready."""
    surge, unavailable = room
    most = wanted + (surge if old else 0)
    create = max(0, min(wanted - len(new), most - len(new) - len(old)))
    surplus = _expendable(new)[: max(0, len(new) - wanted)]
    ready = sum(condition(pod, "Ready") for pod in (*new, *old))
    spare = max(0, ready - (wanted - unavailable))
    delete = list(surplus)
    for pod in _expendable(old):
        if not condition(pod, "Ready"):
            delete.append(pod)
        elif spare > 0:
            delete.append(pod)
            spare -= 1
    return create, delete


def _expendable(pods: Sequence[Object]) -> list[Object]:
    """Least worth keeping first: not scheduled, then not ready, then youngest."""

    def worth(pod: Object) -> tuple[bool, bool]:
        return bool(pod["spec"].get("nodeName")), condition(pod, "Ready")

    youngest_first = sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    return sorted(youngest_first, key=worth)


def _room(deployment: Object, wanted: int) -> tuple[int, int]:
    """How many pods there may be too many, and too few, during a roll-over."""
    strategy = deployment["spec"].get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return 0, wanted
    rolling = strategy.get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", DEFAULT_SHARE), wanted, math.ceil)
    unavailable = _share(rolling.get("maxUnavailable", DEFAULT_SHARE), wanted, math.floor)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _share(value: int | str, wanted: int, rounded: Any) -> int:
    text = str(value)
    if text.endswith("%") and text[:-1].isdigit():
        return int(rounded(int(text[:-1]) * wanted / 100))
    return int(text) if text.isdigit() else 0


def _pod(deployment: Object, template_hash: str, suffix: str) -> dict[str, Any]:
    template, name = deployment["spec"]["template"], deployment["metadata"]["name"]
    metadata = template.get("metadata") or {}
    replica_set = f"{name}-{template_hash}"
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": replica_set, "uid": uid(deployment)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{replica_set}-{suffix}",
            "generateName": f"{replica_set}-",
            "namespace": namespace(deployment),
            "labels": {**(metadata.get("labels") or {}), HASH_LABEL: template_hash},
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": template["spec"],
    }


def _owner(pod: Object) -> str | None:
    """The uid of the deployment that a pod belongs to."""
    for each in pod["metadata"].get("ownerReferences") or ():
        if each.get("controller") and each.get("kind") == "ReplicaSet" and HASH_LABEL in labels(pod):
            return str(each.get("uid", ""))
    return None


def _status(deployment: Object, new: Sequence[Object], old: Sequence[Object], now: str) -> Iterator[Action]:
    ready = sum(condition(pod, "Ready") for pod in (*new, *old))
    wanted = int(deployment["spec"].get("replicas", 1))
    status: dict[str, Any] = {
        "observedGeneration": deployment["metadata"].get("generation", 1),
        "replicas": len(new) + len(old),
        "updatedReplicas": len(new),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, wanted - ready),
    }
    enough = ready >= wanted - _room(deployment, wanted)[1]
    reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
    conditions = condition_update(deployment, "Available", enough, reason, f"{ready} of {wanted} are ready", now)
    if conditions is not None:
        status["conditions"] = conditions
    if not _holds(deployment.get("status", {}), status):
        yield SetStatus(key(deployment), uid(deployment), status)


def _holds(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(found.get(name) == value for name, value in wanted.items())


def _encode(text: str, length: int) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in digest[:length])
