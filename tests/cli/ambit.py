"""A small cluster with Ambit on two nodes, and the `ambit` command as a user runs it."""

from __future__ import annotations

import io
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.app import app
from cli.errors import told_in_one_sentence
from tests.cli.api_server import Cluster, reply

SYSTEM = "/api/v1/namespaces/ambit-system/pods"
KUBERNETES_VARIABLES = ("KUBECONFIG", "KUBERNETES_SERVICE_HOST")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def environment(home: Path, **variables: str) -> dict[str, str]:
    """With a home directory of its own, so that no ~/.kube/config of this machine is found."""
    kept = {name: value for name, value in os.environ.items() if name not in KUBERNETES_VARIABLES}
    return {**kept, "HOME": str(home), "AMBIT_LOCAL_INSTANCE": "ambit-test-no-mesh", **variables}


def ambit(*words: str, home: Path, **variables: str) -> Done:
    """The command in this process: the kubernetes package is loaded once, not for each question."""
    output, complaints = io.StringIO(), io.StringIO()
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(home, **variables))
    try:
        with redirect_stdout(output), redirect_stderr(complaints), told_in_one_sentence():
            app(list(words))
    except SystemExit as end:
        return Done(int(end.code or 0), output.getvalue(), complaints.getvalue())
    finally:
        os.environ.clear()
        os.environ.update(before)
    raise AssertionError("a command ends with SystemExit")


def two_nodes() -> Cluster:
    """Everything is right, and one pod, shop/web, is enrolled."""
    cluster = Cluster()
    apps = "/apis/apps/v1/namespaces/ambit-system"
    cluster.objects[f"{apps}/daemonsets"] = [
        {
            "metadata": {"name": "ambit-node", "namespace": "ambit-system"},
            "spec": {"selector": {"matchLabels": {"app": "node"}}},
            "status": {"desiredNumberScheduled": 2, "currentNumberScheduled": 2},
        }
    ]
    cluster.objects[f"{apps}/deployments"] = [
        {
            "metadata": {"name": "ambit-controller", "namespace": "ambit-system"},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "controller"}}},
            "status": {"replicas": 1},
        }
    ]
    cluster.objects[SYSTEM] = [
        system_pod("ambit-controller-x", "controller", "node1", "controller"),
        system_pod("ambit-node-a", "node", "node1", "ztunnel", "agent"),
        system_pod("ambit-node-b", "node", "node2", "ztunnel", "agent"),
    ]
    cluster.objects["/api/v1/namespaces"] = [
        {"metadata": {"name": "shop", "labels": {"istio.io/dataplane-mode": "ambient"}}},
        {"metadata": {"name": "ambit-system"}},
    ]
    web = enrolled_pod("web")
    cluster.objects["/api/v1/pods"] = [*cluster.objects[SYSTEM], web]
    cluster.objects["/api/v1/namespaces/shop/pods"] = [web]
    types = {"Address": {"acknowledged": "v1", "waiting": False, "rejection": ""}}
    ztunnels = [{"node": node, "peer": "", "types": types} for node in ("node1", "node2")]
    status = {"ready": True, "problems": [], "files": [], "ztunnels": ztunnels}
    cluster.admin["ambit-controller-x", 15014] = lambda path: reply(status)
    for pod, node in (("ambit-node-a", "node1"), ("ambit-node-b", "node2")):
        cluster.admin[pod, 15000] = lambda path, node=node: reply(dump(node) if path == "/config_dump" else [])
        report = '{"pins": "/sys/fs/bpf/ambit", "enrolled": 1, "inbound": ["u1"], "maps": {"enrolled": 1}}'
        cluster.output[pod] = (report, "", 0)
    return cluster


def system_pod(name: str, app: str, node: str, *containers: str) -> dict[str, Any]:
    running = {"state": {"running": {}}, "restartCount": 0}
    return {
        "metadata": {"name": name, "namespace": "ambit-system", "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [{"name": each} for each in containers], "hostNetwork": True},
        "status": {"phase": "Running", "containerStatuses": [{"name": each, **running} for each in containers]},
    }


def enrolled_pod(name: str, annotation: str = "enabled") -> dict[str, Any]:
    annotations = {"ambient.istio.io/redirection": annotation} if annotation else {}
    return {
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {"nodeName": "node1", "containers": [{"name": "app"}]},
        "status": {"phase": "Running"},
    }


def dump(node: str) -> dict[str, Any]:
    """What a ztunnel of the node says it knows; both know the same two workloads."""
    workloads = [
        {"namespace": space, "name": name, "workloadIps": [ip], "node": "node1", "protocol": "HBONE"}
        for space, name, ip in (("shop", "web", "10.0.0.1"), ("bank", "till", "10.0.0.2"))
    ]
    state = {"u1": {"state": "Up", "connections": {"inbound": [], "outbound": []}}} if node == "node1" else {}
    return {"workloads": workloads, "workloadState": state, "services": [], "policies": [], "certificates": []}
