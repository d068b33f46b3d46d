"""Which cgroup belongs to which pod: the names that kubelets and container runtimes give, pure.

    cgroupfs driver   kubepods/burstable/pod<uid>
    systemd driver    kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice

Pods of the class Guaranteed have no group of a class above theirs (k8s.io/kubernetes/pkg/kubelet/cm). Inside are groups
of the runtime (containerd: <id>, cri-containerd-<id>.scope; CRI-O: crio-<id>, crio-<id>.scope), and of the pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

CLASSES = ("", "burstable", "besteffort")
SLICE = ".slice"

_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"  # the latter: of static pods, an MD5 sum
_CGROUPFS = re.compile(rf"pod({_UID})")
_SYSTEMD = re.compile(rf"(?:.+-)?kubepods(?:-burstable|-besteffort)?-pod({_UID})\.slice")


def pod_of(path: str) -> str | None:
    """The uid of the pod that a cgroup is, or is inside of. The outermost name counts: pods name what is inside."""
    for part in path.split("/"):
        found = _CGROUPFS.fullmatch(part) or _SYSTEMD.fullmatch(part)
        if found:
            return found[1].replace("_", "-")
    return None


def places(kubepods: str, uid: str) -> tuple[str, ...]:
    """Where a pod's group can be, below the group of all pods, by the name of that one."""
    if not kubepods.endswith(SLICE):
        return tuple("/".join(filter(None, (each, f"pod{uid}"))) for each in CLASSES)
    base, name = kubepods.removesuffix(SLICE), uid.replace("-", "_")
    return (
        f"{base}-pod{name}{SLICE}",
        *(f"{base}-{each}{SLICE}/{base}-{each}-pod{name}{SLICE}" for each in CLASSES[1:]),
    )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A process of a pod, and the network namespace (device and inode) that it is in."""

    process: int
    started: int  # since the machine's start, in the kernel's ticks
    netns: tuple[int, int]


def choose(found: Iterable[Candidate], host: frozenset[tuple[int, int]]) -> Candidate | None:
    """The process that is surely where its pod is: the first one, which the runtime has put there. Later ones may have
    gone elsewhere by themselves. Helpers of the runtime, which some count to the pod, stay on the host."""
    inside = [each for each in found if each.netns not in host]
    return min(inside, key=lambda each: (each.started, each.process), default=None)
