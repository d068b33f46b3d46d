"""Ambit on a cluster: installed from the chart, taken away again, and the hands of a test in between."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from deploy.local import namespaces
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE, REDIRECTION
from tests.cluster import control_plane, images, nodes
from tests.cluster.commands import CommandError, run
from tests.cluster.daemons import change
from tests.cluster.plan import BIN, Cluster
from tests.kube import artifacts
from tests.kube.underlay import Sniffer
from tests.scenarios.home import Programs, Running, until

__all__ = ["KubeMesh", "until"]

NAMESPACE, RELEASE = "ambit-system", "ambit"
CHART = artifacts.ROOT / "deploy/helm/ambit"
READY_WITHIN, GONE_WITHIN = "240s", "240s"  # of machines that others keep busy
T = TypeVar("T")


@dataclass
class KubeMesh:
    """A cluster with Ambit on it. Pods are named `namespace/pod`; commands that fail raise with what they said."""

    cluster: Cluster
    apps: str  # image of /traffic, /first and /probe
    tag: str  # of Ambit's own images
    _programs: Programs = field(default_factory=Programs)
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    # --- the API

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return control_plane.kubectl(self.cluster, *arguments, text=text)

    def apply(self, manifest: str) -> None:
        """APPS in it stands for the image of the tests' programs."""
        self.kubectl("apply", "-f", "-", text=manifest.replace("APPS", self.apps))

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def ambit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command as a user runs it against this cluster."""
        options = ("--kubeconfig", str(self.cluster.kubeconfig))
        return subprocess.run([sys.executable, "-m", "cli", *words, *options], capture_output=True, text=True)

    @contextmanager
    def namespace(self, prefix: str, *, meshed: bool = False) -> Iterator[str]:
        """A fresh one, gone at the end (its pods end meanwhile, in the background)."""
        name = f"{prefix}-{next(self._numbers)}-{int(time.time()) % 100000}"
        labels = {DATAPLANE_MODE: AMBIENT} if meshed else {}
        self.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
        try:
            yield name
        finally:
            self.end_programs()
            self.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")

    def label(self, kind: str, name: str, value: str | None, *, namespace: str = "") -> None:
        """The mode of a namespace or pod; None takes the label away."""
        change = f"{DATAPLANE_MODE}-" if value is None else f"{DATAPLANE_MODE}={value}"
        self.kubectl("label", kind, name, change, "--overwrite", *(["-n", namespace] if namespace else []))

    def wait_ready(self, namespace: str, timeout: float = 120) -> None:
        self.kubectl("wait", "pod", "--all", "-n", namespace, "--for=condition=Ready", f"--timeout={timeout:.0f}s")

    def redirections(self, namespace: str, *options: str) -> dict[str, str]:
        """What each pod's annotation says of its enrolment; "" where there is none."""
        pods = self.get("pods", "-n", namespace, *options)["items"]
        return {each["metadata"]["name"]: each["metadata"].get("annotations", {}).get(REDIRECTION, "") for each in pods}

    def wait_redirected(self, namespace: str, wanted: str = "enabled", *options: str) -> None:
        """Until every pod of the namespace shows it; "" waits until none shows anything."""
        until(lambda: set(self.redirections(namespace, *options).values()) == {wanted}, f"{namespace} shows {wanted!r}")

    def addresses(self, pod: str) -> list[str]:
        namespace, name = pod.split("/")
        return [each["ip"] for each in self.get("pod", name, "-n", namespace)["status"]["podIPs"]]

    def service_addresses(self, service: str) -> list[str]:
        namespace, name = service.split("/")
        addresses: list[str] = self.get("service", name, "-n", namespace)["spec"]["clusterIPs"]
        return addresses

    # --- in pods

    def exec(self, pod: str, *command: str, container: str = "") -> str:
        namespace, name = pod.split("/")
        chosen = ["-c", container] if container else []
        return self.kubectl("exec", name, "-n", namespace, *chosen, "--", *command)

    def start(self, pod: str, *command: str) -> Running:
        """Goes on until `finish`, or until the namespace's test ends. It has said its first line."""
        namespace, name = pod.split("/")
        kubectl = (str(BIN / "kubectl"), f"--kubeconfig={self.cluster.kubeconfig}", "exec", "-i", name)
        return self._programs.start((*kubectl, "-n", namespace, "--", *command))

    def load(self, pod: str, host: str, port: int, marker: str, *, kept: int = 4, fresh: int = 4) -> Running:
        """Requests without an end; `finish` has their counts (tests/kube/apps/traffic)."""
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return self.start(pod, "/traffic", "load", where, marker, str(kept), str(fresh))

    def end_programs(self) -> None:
        self._programs.end()

    # --- the machine

    def within(self, place: str, work: Callable[[], T]) -> T:
        """In the network namespace of a node, or of `underlay`, `outside` or `control`."""
        return namespaces.inside(Path("/run/netns", self.cluster.namespace(place)), work)

    def sniff(self, pattern: bytes) -> Sniffer:
        """Searches what passes between nodes, also to and from the control plane and outside."""
        return Sniffer(pattern, lambda work: self.within("underlay", work))

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.cluster.nodes)

    def on_node(self, node: str, *command: str) -> str:
        return nodes.on_node(self.cluster.node(node), *command)

    def processes(self, node: str, *words: str) -> list[int]:
        """Ids, as the node counts them, of its processes whose command line has all the words."""
        listed = (line.split(None, 1) for line in self.on_node(node, "ps", "-eo", "pid=,args=").splitlines())
        found = [(int(pid), line) for pid, line in listed if not line.startswith(("ps ", "[", "nsenter"))]
        return [pid for pid, line in found if all(word in line for word in words)]

    def kill(self, node: str, *words: str, signal: str = "KILL") -> list[int]:
        """The processes with these words: `ztunnel.agent`, `deploy.node`, ...; the kubelet starts containers again."""
        found = self.processes(node, *words)
        if found:
            self.on_node(node, "kill", f"-{signal}", *map(str, found))
        return found

    def daemon(self, name: str, verb: str, *, kill: bool = False) -> None:
        """`stop`, `start` or `restart` one: `node1.kubelet`, `node1.containerd`, `kube-apiserver`, ..."""
        change(self.cluster, name, verb, kill)


@contextmanager
def installed(cluster: Cluster, *, keep: bool = False) -> Iterator[KubeMesh]:
    """Builds what has changed, loads it, installs or upgrades the release. Raises CannotBuild, CommandError."""
    tag, archives = artifacts.mesh_archives()
    apps, apps_archive = artifacts.apps_archive()
    for archive in (*archives, apps_archive):
        load_once(cluster, archive)
    try:
        install(cluster, tag)
        mesh = KubeMesh(cluster, apps, tag)
        try:
            yield mesh
        finally:
            mesh.end_programs()
    finally:
        if not keep:
            helm(cluster, "uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout", GONE_WITHIN)


def load_once(cluster: Cluster, archive: Path) -> None:
    """On every node that does not have it: tags name contents here."""
    found = images.names(archive)
    for node in cluster.nodes:
        if not all(nodes.on_node(node, *images.CTR, "list", "-q", f"name=={name}").strip() for name in found):
            images.load_on(node, archive, found)


def install(cluster: Cluster, tag: str, *values: str) -> None:
    chosen = (*(f"images.{image}.tag={tag}" for image in artifacts.IMAGES), *values)
    settings = [word for value in chosen for word in ("--set", value)]
    waiting = ("--wait", "--timeout", READY_WITHIN)
    try:
        helm(cluster, "upgrade", "--install", RELEASE, str(CHART), "--create-namespace", *waiting, *settings)
        for workload in ("deployment/ambit-controller", "daemonset/ambit-node"):  # helm lets maxUnavailable be missing
            status = ("rollout", "status", workload, "-n", NAMESPACE, f"--timeout={READY_WITHIN}")
            control_plane.kubectl(cluster, *status)
    except CommandError as error:
        raise AssertionError(f"{error}\n{why_not_ready(cluster)}") from error


def why_not_ready(cluster: Cluster) -> str:
    events = ("get", "events", "-n", NAMESPACE, "--sort-by=.lastTimestamp")
    return control_plane.kubectl(cluster, "get", "pods", "-A", "-o", "wide") + "\n".join(
        control_plane.kubectl(cluster, *events).splitlines()[-15:]
    )


def helm(cluster: Cluster, *arguments: str) -> str:
    return run(str(BIN / "helm"), f"--kubeconfig={cluster.kubeconfig}", "--namespace", NAMESPACE, *arguments)
