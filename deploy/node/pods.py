"""Facts about a pod's object; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from controller.store.interface import Object

ENDED = ("Succeeded", "Failed")  # phases
MIRROR = "kubernetes.io/config.mirror"  # annotation of an object that only shows a static pod of some node
STATIC_UID = re.compile(r"[0-9a-f]{32}")  # an MD5 sum: the API server gives no such uid


def uid(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def is_on_host(pod: Object) -> bool:
    """It has no network namespace of its own. Where its processes are says nothing: those of ztunnel are now in this
    pod's namespace, now in that one's."""
    return bool((pod.get("spec") or {}).get("hostNetwork"))


def has_ended(pod: Object) -> bool:
    """All its containers have, for good: a Job's, once it is done."""
    return (pod.get("status") or {}).get("phase") in ENDED


def sandbox_uid(pod: Object, node: str) -> str:
    """The uid that the kubelet, its cgroups and the CNI plugin know the pod by. A static pod has the one that its
    mirror's annotation says, if the kubelet of this node owns the mirror and it cannot be that of another pod."""
    metadata = pod["metadata"]
    said = str((metadata.get("annotations") or {}).get(MIRROR, ""))
    owners = metadata.get("ownerReferences") or ()
    mirrored = any(each.get("kind") == "Node" and each.get("name") == node for each in owners)
    return said if mirrored and STATIC_UID.fullmatch(said) else uid(pod)


def static_uids(pods: Iterable[Object], node: str) -> dict[str, str]:
    """By the mirror's uid. One that two mirrors claim belongs to neither."""
    claims = {uid(pod): sandbox_uid(pod, node) for pod in pods}
    claimed = list(claims.values())
    return {mirror: static for mirror, static in claims.items() if static != mirror and claimed.count(static) == 1}
