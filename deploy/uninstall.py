"""`python -m deploy.uninstall`: takes a whole cluster out of the mesh before the chart's objects go.

It runs as the chart's pre-delete hook, because the order matters and no DaemonSet can tell its end from a restart:
labels first, then every node lets its pods go while ztunnel still serves them, then the DaemonSet, and only then what
it would put back at once: the capture and the CNI plugin. Doing it again does no harm.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from controller.store.interface import NotFound, StoreError
from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.connection import connect
from controller.store.kubernetes.errors import AlreadyExists
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE

LOOK_EVERY = 0.5  # seconds
LAST_WORDS = 3  # lines of a pod's log that are told when it fails
ENDED = ("Succeeded", "Failed")  # phases of a pod
CLASSES = {"ambit-waypoint", "istio-waypoint"}  # of Gateways: the controller makes those that are not there
CLASS_OF = "ambit.io/waypoint-controller"
OWN_CA = "root-key.pem"  # in a Secret that the controller has made; a given CA has other files
Object = Mapping[str, Any]


class Unfinished(Exception):
    """One sentence: what is left, and where."""


@dataclass(frozen=True)
class Cluster:
    """An API server, and the namespace that Ambit is in. `deadline` is on the monotonic clock."""

    server: ApiServer
    namespace: str
    deadline: float

    def inside(self, collection: str, group: str = "/api/v1") -> str:
        return f"{group}/namespaces/{self.namespace}/{collection}"

    def selected(self, path: str, labels: Mapping[str, str]) -> Sequence[Object]:
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        items: Sequence[Object] = self.server.get(f"{path}?labelSelector={quote(selector)}")["items"]
        return items

    def delete(self, path: str) -> None:
        try:
            self.server.delete(path)
        except NotFound:
            pass

    def until(self, done: Callable[[], bool], left: Callable[[], str]) -> None:
        """Raises Unfinished with what is `left` when the time is over."""
        while not done():
            if time.monotonic() > self.deadline:
                raise Unfinished(left())
            time.sleep(LOOK_EVERY)


def remove_labels(cluster: Cluster) -> None:
    for namespace in cluster.selected("/api/v1/namespaces", {DATAPLANE_MODE: AMBIENT}):
        name = namespace["metadata"]["name"]
        cluster.server.patch(f"/api/v1/namespaces/{name}", {"metadata": {"labels": {DATAPLANE_MODE: None}}})
        say(f"namespace {name} has no label {DATAPLANE_MODE} any more")


def nodes(cluster: Cluster, selector: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Those that can be cleaned now, and those that are away."""
    found = cluster.selected("/api/v1/nodes", selector)
    ready = [node["metadata"]["name"] for node in found if is_ready(node)]
    return ready, [node["metadata"]["name"] for node in found if not is_ready(node)]


def is_ready(node: Object) -> bool:
    conditions = node.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def on_every_node(cluster: Cluster, names: Sequence[str], task: str, template: Path) -> None:
    """Runs the template's pod once on each node, all at the same time. Raises Unfinished."""
    manifest = yaml.safe_load(template.read_text())
    pods = {pod_name(task, node): node for node in names}
    drop_pods(cluster, pods)
    for name, node in pods.items():
        make_pod(cluster, manifest, name, node)
    try:
        cluster.until(
            lambda: all(phase in ENDED for phase in phases(cluster, pods).values()), lambda: late(cluster, pods, task)
        )
        failed = [name for name, phase in phases(cluster, pods).items() if phase == "Failed"]
        if failed:
            raise Unfinished(
                "; ".join(f"{task} failed on node {pods[name]}: {last_words(cluster, name)}" for name in failed)
            )
    finally:
        drop_pods(cluster, pods)
    say(f"{task}: done on {len(pods)} nodes")


def pod_name(task: str, node: str) -> str:
    """Node names may be longer than a pod's may, and have dots."""
    return f"ambit-{task}-{hashlib.sha256(node.encode()).hexdigest()[:10]}"


def make_pod(cluster: Cluster, manifest: Object, name: str, node: str) -> None:
    metadata = {**manifest["metadata"], "name": name, "namespace": cluster.namespace}
    try:
        cluster.server.create(
            cluster.inside("pods"), {**manifest, "metadata": metadata, "spec": {**manifest["spec"], "nodeName": node}}
        )
    except AlreadyExists:
        raise Unfinished(f"another uninstallation is on its way: pod {cluster.namespace}/{name} is there") from None


def drop_pods(cluster: Cluster, pods: Mapping[str, str]) -> None:
    for name in pods:
        cluster.delete(f"{cluster.inside('pods')}/{name}")
    cluster.until(lambda: not phases(cluster, pods), lambda: f"pods {', '.join(phases(cluster, pods))} do not end")


def phases(cluster: Cluster, pods: Mapping[str, str]) -> dict[str, str]:
    found = cluster.selected(cluster.inside("pods"), {"app": "ambit-uninstall"})
    return {pod["metadata"]["name"]: pod["status"].get("phase", "") for pod in found if pod["metadata"]["name"] in pods}


def late(cluster: Cluster, pods: Mapping[str, str], task: str) -> str:
    waiting = [f"{pods[name]} ({phase})" for name, phase in phases(cluster, pods).items() if phase not in ENDED]
    return f"{task} has not ended in time on {', '.join(sorted(waiting))}"


def last_words(cluster: Cluster, name: str) -> str:
    """Of the pod's containers, in the order in which they run: the one that failed has spoken last."""
    pod = cluster.server.get(f"{cluster.inside('pods')}/{name}")
    statuses = [*(pod["status"].get("initContainerStatuses") or ()), *(pod["status"].get("containerStatuses") or ())]
    for each in statuses:
        end = each.get("state", {}).get("terminated")
        if end and end.get("exitCode"):
            return " / ".join((end.get("message") or end.get("reason") or "").strip().splitlines()[-LAST_WORDS:])
    return str(pod["status"].get("message") or pod["status"].get("reason") or "no reason given")


def end(cluster: Cluster, kind: str, name: str, away: Collection[str]) -> None:
    """Deletes a DaemonSet or Deployment and waits for its pods to go; those of nodes that are away stay until then."""
    cluster.delete(f"{cluster.inside(kind, '/apis/apps/v1')}/{name}")

    def left() -> list[str]:
        return living(cluster.selected(cluster.inside("pods"), {"app": name}), away)

    cluster.until(lambda: not left(), lambda: f"pods of {name} do not end: {', '.join(left())}")
    say(f"{name} has ended")


def living(pods: Iterable[Object], away: Collection[str]) -> list[str]:
    """The names of pods that a kubelet will end. Pure."""
    return [pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName") not in away]


def remove_written(cluster: Cluster) -> None:
    """What the controller wrote, so that no chart knows of it. A CA that it was given stays."""
    cluster.delete(f"{cluster.inside('configmaps')}/ambit-ca-root-cert")
    cluster.delete(f"{cluster.inside('leases', '/apis/coordination.k8s.io/v1')}/ambit-controller")
    secret = f"{cluster.inside('secrets')}/ambit-ca"
    try:
        if OWN_CA in (cluster.server.get(secret).get("data") or {}):
            cluster.delete(secret)
    except NotFound:
        pass
    remove_classes(cluster)


def remove_classes(cluster: Cluster) -> None:
    """Gateways, and waypoints with them, are their owners' and stay."""
    for name in sorted(CLASSES):
        path = f"/apis/gateway.networking.k8s.io/v1/gatewayclasses/{name}"
        try:
            if cluster.server.get(path)["spec"].get("controllerName") == CLASS_OF:
                cluster.delete(path)
        except NotFound:
            pass  # or the cluster has no Gateway API


def run(cluster: Cluster, selector: Mapping[str, str], pods: Path, labels: bool) -> None:
    """Raises Unfinished, StoreError."""
    if labels:
        remove_labels(cluster)
    present, away = nodes(cluster, selector)
    on_every_node(cluster, present, "withdraw", pods / "withdraw.yaml")
    end(cluster, "daemonsets", "ambit-node", away)
    on_every_node(cluster, present, "remove", pods / "remove.yaml")
    end(cluster, "deployments", "ambit-controller", away)
    remove_written(cluster)
    if away:
        raise Unfinished(
            f"nodes that are away were left as they are: {', '.join(away)}; bring them back or delete them, and "
            "uninstall again (or with --no-hooks, if they never return)"
        )


def say(sentence: str) -> None:
    print(f"uninstall: {sentence}", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("deploy.uninstall", description="Takes a cluster out of the mesh.")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--pods", type=Path, required=True, help="directory with withdraw.yaml and remove.yaml")
    parser.add_argument("--node-selector", default="", help="NAME=VALUE,...: the nodes that Ambit is on")
    parser.add_argument("--keep-labels", action="store_true", help=f"leave {DATAPLANE_MODE} on namespaces")
    parser.add_argument("--timeout", type=float, default=240.0, help="seconds")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    selector = dict(each.split("=", 1) for each in given.node_selector.split(",") if each)
    try:
        run(
            Cluster(connect(), given.namespace, time.monotonic() + given.timeout),
            selector,
            given.pods,
            not given.keep_labels,
        )
    except (Unfinished, StoreError) as problem:
        say(str(problem))
        return 1
    say("the cluster is out of the mesh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
