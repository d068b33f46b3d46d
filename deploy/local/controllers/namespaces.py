"""Namespaces: each has a service account "default"; what is in one that is gone, goes."""

from __future__ import annotations

from collections.abc import Iterator

from controller.store.interface import Object
from controller.store.kinds import KINDS
from deploy.local.controllers.actions import Action, Apply, Delete, Picture, SetStatus, is_terminating, key, namespace, uid

FIRST_NAMESPACES = ("default", "kube-system", "ambit-system")
NAME_LABEL = "kubernetes.io/metadata.name"  # Kubernetes sets it on every namespace, selectors rely on it


def first_namespaces(picture: Picture) -> Iterator[Action]:
    """Those that a mesh begins with."""
    known = {each["metadata"]["name"] for each in picture.of("Namespace")}
    for name in FIRST_NAMESPACES:
        if name not in known:
            yield Apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def reconcile(picture: Picture) -> Iterator[Action]:
    living = {each["metadata"]["name"]: each for each in picture.of("Namespace") if not is_terminating(each)}
    accounts = picture.names("ServiceAccount")
    for name, obj in living.items():
        if obj.get("status", {}).get("phase") != "Active":
            yield SetStatus(key(obj), uid(obj), {"phase": "Active"})
        yield from _label(obj)
        if (name, "default") not in accounts:
            metadata = {"name": "default", "namespace": name}
            yield Apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    yield from _collect(picture, frozenset(living))


def _label(obj: Object) -> Iterator[Action]:
    name, labels = obj["metadata"]["name"], obj["metadata"].get("labels") or {}
    if labels.get(NAME_LABEL) != name:
        yield Apply({**obj, "metadata": {**obj["metadata"], "labels": {**labels, NAME_LABEL: name}}})


def _collect(picture: Picture, living: frozenset[str]) -> Iterator[Action]:
    for kind in KINDS:
        if kind.namespaced:
            yield from (Delete(key(each)) for each in picture.of(kind.kind) if namespace(each) not in living)
