"""The controller's state for people and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.compile.compiler import Compiler
from controller.follow import Follower
from controller.publish.publisher import ConnectionStatus, Publisher
from mesh.runtime.readiness import Readiness


def status(
    follower: Follower, publisher: Publisher, readiness: Readiness, file_problems: Iterable[str]
) -> dict[str, Any]:
    """Plain values. `version` names the published state, and is what a ztunnel that is up to date has acknowledged."""
    return {
        "ready": readiness.ready,
        "waiting": list(readiness.waiting.values()),
        "version": publisher.version,
        "objects": _objects(follower.compiler),
        "published": _published(follower.compiler),
        "ztunnels": [_ztunnel(each) for each in publisher.status() if not each.client.waypoint],
        "waypoints": [_waypoint(each) for each in publisher.status() if each.client.waypoint],
        "problems": [
            {
                "kind": problem.key.kind,
                "namespace": problem.key.namespace,
                "name": problem.key.name,
                "field": problem.field,
                "message": problem.sentence,
            }
            for problem in follower.compiler.problems()
        ],
        "files": list(file_problems),
    }


def _objects(compiler: Compiler) -> dict[str, int]:
    index = compiler.index
    return {
        "namespaces": len(index.namespaces),
        "nodes": len(index.nodes),
        "pods": len(index.pods),
        "services": len(index.services),
        "endpointslices": len(index.slices),
    }


def _published(compiler: Compiler) -> dict[str, int]:
    workloads, services = compiler.counts()
    return {"workloads": workloads, "services": services}


def _ztunnel(connection: ConnectionStatus) -> dict[str, Any]:
    return {"node": connection.client.name, "peer": connection.peer, "types": _types(connection)}


def _waypoint(connection: ConnectionStatus) -> dict[str, Any]:
    client = connection.client
    return {"waypoint": client.waypoint, "pod": client.name, "peer": connection.peer, "types": _types(connection)}


def _types(connection: ConnectionStatus) -> dict[str, Any]:
    return {
        url.rpartition(".")[2]: {
            "acknowledged": each.acknowledged,
            "waiting": each.waiting,
            "rejection": each.rejection,
        }
        for url, each in connection.types.items()
    }


class Metrics(Collector):
    """Read when asked for. `pilot_xds` and `pilot_services` are istiod's, so that its dashboards work."""

    def __init__(self, follower: Follower, publisher: Publisher) -> None:
        self._follower = follower
        self._publisher = publisher

    def collect(self) -> Iterator[GaugeMetricFamily]:
        compiler = self._follower.compiler
        workloads, services = compiler.counts()
        connections = self._publisher.status()
        behind = sum(any(each.waiting for each in connection.types.values()) for connection in connections)
        refused = sum(any(each.rejection for each in connection.types.values()) for connection in connections)
        yield GaugeMetricFamily("pilot_xds", "Connected ztunnels and waypoints.", len(connections))
        yield GaugeMetricFamily("pilot_services", "Services in the mesh.", services)
        yield GaugeMetricFamily("ambit_workloads", "Workloads that are published.", workloads)
        yield GaugeMetricFamily("ambit_problems", "Objects' problems that are known.", len(compiler.problems()))
        yield GaugeMetricFamily("ambit_ztunnels_waiting", "Ztunnels that have not answered the last push.", behind)
        yield GaugeMetricFamily("ambit_ztunnels_rejecting", "Ztunnels that refused part of the last push.", refused)


def registry(follower: Follower, publisher: Publisher) -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(Metrics(follower, publisher))
    return found
