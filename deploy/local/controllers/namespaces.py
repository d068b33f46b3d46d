"""Namespaces: a mesh begins with some; each has a service account "default"; what is in one that went, goes."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from controller.store.interface import Object
from controller.store.kinds import KINDS
from deploy.local.controllers.actions import Action, Apply, Delete, Merge, Picture, SetStatus
from deploy.local.objects import is_terminating, key, labels, namespace, uid

FIRST_NAMESPACES = ("default", "kube-system", "ambit-system")
NAME_LABEL = "kubernetes.io/metadata.name"  # Kubernetes sets it on every namespace, selectors rely on it


def begin(picture: Picture) -> Iterator[Action]:
    known = {each["metadata"]["name"] for each in picture.of("Namespace")}
    for name in FIRST_NAMESPACES:
        if name not in known:
            yield Apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def reconcile(picture: Picture) -> Iterator[Action]:
    accounts = picture.names("ServiceAccount")
    for obj in picture.of("Namespace"):
        name = obj["metadata"]["name"]
        yield from _dress(obj)
        if (name, "default") not in accounts:
            metadata = {"name": "default", "namespace": name}
            yield Apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})


def collect(picture: Picture, gone: Collection[str]) -> Iterator[Action]:
    """Delete what is in namespaces that were there and are `gone`. One that never was may still be to come."""
    for kind in KINDS:
        if kind.namespaced:
            found = (each for each in picture.of(kind.kind) if namespace(each) in gone)
            yield from (Delete(key(each)) for each in found if not is_terminating(each))


def _dress(obj: Object) -> Iterator[Action]:
    name = obj["metadata"]["name"]
    if labels(obj).get(NAME_LABEL) != name:
        yield Merge(key(obj), uid(obj), {"metadata": {"labels": {NAME_LABEL: name}}})
    if obj.get("status", {}).get("phase") != "Active":
        yield SetStatus(key(obj), uid(obj), {"phase": "Active"})
