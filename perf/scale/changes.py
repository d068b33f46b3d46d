"""What happens in a cluster: the changes that are measured, each of exactly one endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from controller.compile.options import MeshOptions
from controller.compile.workloads import pod_uid
from controller.store.kinds import POD
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer
from perf.scale import filling, objects
from perf.scale.objects import PodPlace, Size

_STRIDE = 7  # of the pods that are changed: neighbours share a service or a node


@dataclass(frozen=True, slots=True)
class Change:
    """`write` is one request. Every ztunnel is to be told of the resource `name`, and of nothing else."""

    name: str
    write: Callable[[], object]
    removes: bool = False


def changes(server: ApiServer, size: Size, count: int) -> dict[str, Iterator[Change]]:
    """By what they are; `count` of each, in pairs of a change and one that takes it back."""
    places = [objects.place(size, number * _STRIDE % size.pods) for number in range(count // 2)]
    return {
        "pod ready": _there_and_back(places, lambda where: _ready(server, where)),
        "pod IP": _there_and_back(places, lambda where: _address(server, where)),
        "EndpointSlice": _there_and_back(places, lambda where: _endpoint(server, size, where)),
        "pod gone": _gone(server, places),
    }


def bursts(server: ApiServer, size: Size, count: int) -> tuple[list[Change], list[Change]]:
    """Many pods that are unready together, and ready again."""
    places = [objects.place(size, number) for number in range(min(count, size.pods))]
    pairs = [tuple(_ready(server, where)) for where in places]
    return [away for away, _ in pairs], [back for _, back in pairs]


def _there_and_back(places: list[PodPlace], pair: Callable[[PodPlace], Iterator[Change]]) -> Iterator[Change]:
    for where in places:
        yield from pair(where)


def _ready(server: ApiServer, where: PodPlace) -> Iterator[Change]:
    yield Change(uid(where), lambda: filling.write_status(server, where, where.ip, ready=False))
    yield Change(uid(where), lambda: filling.write_status(server, where, where.ip))


def _address(server: ApiServer, where: PodPlace) -> Iterator[Change]:
    yield Change(uid(where), lambda: filling.write_status(server, where, where.other_ip))
    yield Change(uid(where), lambda: filling.write_status(server, where, where.ip))


def _endpoint(server: ApiServer, size: Size, where: PodPlace) -> Iterator[Change]:
    """The pod leaves its service and comes back."""
    full = objects.endpoints(size, where.service)
    less = [each for each in full if each["targetRef"]["name"] != where.name]
    yield Change(uid(where), lambda: filling.write_endpoints(server, size, where.service, less))
    yield Change(uid(where), lambda: filling.write_endpoints(server, size, where.service, full))


def _gone(server: ApiServer, places: list[PodPlace]) -> Iterator[Change]:
    for where in places:
        path = paths.of(POD, where.name, where.namespace)
        yield Change(uid(where), lambda path=path: server.delete(f"{path}?gracePeriodSeconds=0"), removes=True)  # type: ignore[misc]


def uid(where: PodPlace) -> str:
    return pod_uid(MeshOptions().cluster_id, where.namespace, where.name)
