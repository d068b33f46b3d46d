"""Fills an API server with the objects of a large cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from controller.store.interface import Kind
from controller.store.kinds import ENDPOINT_SLICE, NAMESPACE, NODE, POD, SERVICE
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer
from perf.scale import objects
from perf.scale.objects import Size

_AT_ONCE = 8  # requests: more only wait for the API server's processor


def fill(server: ApiServer, size: Size, advance: Callable[[int], None]) -> None:
    """`advance` is told how many objects have been made since it was last called. Raises StoreError."""
    with ThreadPoolExecutor(_AT_ONCE, "fill") as threads:
        for works in _stages(server, size):
            for _ in threads.map(lambda work: work(), works):
                advance(1)


def total(size: Size) -> int:
    return size.namespaces + size.nodes + 2 * size.services + size.pods


def _stages(server: ApiServer, size: Size) -> Iterator[Iterable[Callable[[], None]]]:
    """What the next one needs is there when it begins."""
    for kind, made in (
        (NAMESPACE, objects.namespaces(size)),
        (NODE, objects.nodes(size)),
        (SERVICE, objects.services(size)),
    ):
        yield [_create(server, kind, obj) for obj in made]
    yield [_create_pod(server, size, number) for number in range(size.pods)]
    yield [_create(server, ENDPOINT_SLICE, obj) for obj in objects.slices(size)]


def _create(server: ApiServer, kind: Kind, obj: dict[str, Any]) -> Callable[[], None]:
    full = {"apiVersion": kind.api_version, "kind": kind.kind, **obj}
    path = paths.collection(kind, obj["metadata"].get("namespace", ""))
    return lambda: server.create(path, full)


def _create_pod(server: ApiServer, size: Size, number: int) -> Callable[[], None]:
    """The status is written by a second request, as a kubelet does."""

    def work() -> None:
        where = objects.place(size, number)
        _create(server, POD, objects.pod(size, number))()
        write_status(server, where, where.ip)

    return work


def write_status(server: ApiServer, where: objects.PodPlace, ip: str, ready: bool = True) -> None:
    server.patch(paths.of(POD, where.name, where.namespace, "status"), {"status": objects.status(ip, ready)})


def write_endpoints(server: ApiServer, size: Size, service: int, endpoints: list[Any]) -> None:
    where = objects.place(size, service)
    server.patch(paths.of(ENDPOINT_SLICE, objects.slice_name(service), where.namespace), {"endpoints": endpoints})
