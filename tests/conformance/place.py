"""Where the suite runs: a cluster with Gateway API, Ambit from its chart, a waypoint in each of the suite's namespaces.

The suite makes its namespaces if they are missing and labels them as it is told. They are made before it begins,
because their waypoints belong into them and should be ready.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE
from mesh.model.ports import HBONE
from tests.cluster.control_plane import kubectl
from tests.cluster.plan import Cluster
from tests.conformance import artifacts
from tests.kube.installed import KubeMesh, installed, load_once

NAMESPACES = ("gateway-conformance-mesh", "gateway-conformance-mesh-consumer")
WAYPOINT = "waypoint"
LABELS = {DATAPLANE_MODE: AMBIENT, "istio.io/use-waypoint": WAYPOINT}
READY_WITHIN = "240s"


@contextmanager
def prepared(cluster: Cluster, *, keep: bool = False) -> Iterator[KubeMesh]:
    """Raises CannotBuild, CommandError."""
    load_once(cluster, artifacts.echo_archive())
    install_gateway_api(cluster)
    with installed(cluster, keep=keep) as mesh:
        make_waypoints(mesh)
        yield mesh


def install_gateway_api(cluster: Cluster) -> None:
    kubectl(cluster, "apply", "--server-side", "-k", str(artifacts.custom_resources()))
    kubectl(cluster, "wait", "crd", "--all", "--for=condition=Established", f"--timeout={READY_WITHIN}")


def make_waypoints(mesh: KubeMesh) -> None:
    for namespace in NAMESPACES:
        mesh.apply(json.dumps(named_namespace(namespace)))
        mesh.apply(json.dumps(gateway(namespace)))
    for namespace in NAMESPACES:
        condition = ("--for=condition=Programmed", f"--timeout={READY_WITHIN}")
        mesh.kubectl("wait", "gateway", WAYPOINT, "-n", namespace, *condition)


def named_namespace(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": LABELS}}


def gateway(namespace: str) -> dict[str, object]:
    listener = {"name": "mesh", "port": HBONE, "protocol": "HBONE"}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": WAYPOINT, "namespace": namespace},
        "spec": {"gatewayClassName": "ambit-waypoint", "listeners": [listener]},
    }
