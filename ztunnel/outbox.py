"""What the agent still has to tell a worker, in bounded memory however slowly that worker reads.

Only the newest word counts: changes of the mesh are merged into one, a certificate replaces its predecessor, and a pod
that comes and goes unseen is not mentioned. So an outbox never holds more than the whole state.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from mesh.model.update import MeshUpdate
from ztunnel.feed import (
    Certificate,
    CertificateMissing,
    DescribeConnections,
    Drain,
    Mesh,
    Ping,
    PodAdded,
    PodRemoved,
    ToWorker,
)

# People ask for connections; more questions than this at once are a mistake, and the oldest go unanswered.
MAX_QUESTIONS = 64

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def merged(first: MeshUpdate, second: MeshUpdate) -> MeshUpdate:
    """One update with the effect of `first` and then `second`."""
    if second.replace:
        return second
    workloads, removed_workloads = _merge(
        first.workloads, first.removed_workloads, second.workloads, second.removed_workloads, lambda one: one.uid
    )
    services, removed_services = _merge(
        first.services, first.removed_services, second.services, second.removed_services, lambda one: one.key
    )
    policies, removed_policies = _merge(
        first.policies, first.removed_policies, second.policies, second.removed_policies, lambda one: one.key
    )
    return MeshUpdate(
        workloads=workloads,
        services=services,
        policies=policies,
        removed_workloads=removed_workloads,
        removed_services=removed_services,
        removed_policies=removed_policies,
        replace=first.replace,
    )


def _merge(
    old: Iterable[Item],
    old_removed: Iterable[Key],
    new: Iterable[Item],
    new_removed: Iterable[Key],
    key: Callable[[Item], Key],
) -> tuple[tuple[Item, ...], tuple[Key, ...]]:
    kept = {key(item): item for item in old}
    gone = dict.fromkeys(old_removed)
    for name in new_removed:
        kept.pop(name, None)
        gone[name] = None
    for item in new:
        kept[key(item)] = item
        gone.pop(key(item), None)
    return tuple(kept.values()), tuple(gone)


class Outbox:
    """Messages in the order in which they were first due, each with the descriptors that travel with it.

    The descriptors stay their owner's: who takes one out of service takes its message back by putting `PodRemoved`.
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, tuple[ToWorker, tuple[int, ...]]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: ToWorker, descriptors: tuple[int, ...] = ()) -> None:
        key = _key(message)
        if isinstance(message, PodRemoved) and self._waiting.pop(("added", message.uid), None) is not None:
            return
        if isinstance(message, Mesh) and key in self._waiting:
            earlier, _ = self._waiting[key]
            assert isinstance(earlier, Mesh)
            message = Mesh(merged(earlier.update, message.update))
        self._waiting[key] = (message, descriptors)
        self._forget_old_questions()

    def head(self) -> tuple[ToWorker, tuple[int, ...]] | None:
        """What is next, without taking it."""
        return next(iter(self._waiting.values()), None)

    def take(self) -> None:
        """The head is on its way."""
        del self._waiting[next(iter(self._waiting))]

    def _forget_old_questions(self) -> None:
        questions = [key for key in self._waiting if isinstance(key, tuple) and key[0] == "question"]
        for key in questions[:-MAX_QUESTIONS]:
            del self._waiting[key]


def _key(message: ToWorker) -> Hashable:
    match message:
        case Mesh():
            return "mesh"
        case Certificate(identity=identity) | CertificateMissing(identity=identity):
            return ("certificate", identity)
        case PodAdded(uid=uid):
            return ("added", uid)
        case PodRemoved(uid=uid):
            return ("removed", uid)
        case DescribeConnections(number=number):
            return ("question", number)
        case Drain():
            return "drain"
        case Ping():
            return "ping"
