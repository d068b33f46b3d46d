"""What a cluster says of itself: the facts that `verdict` judges, and how far an installation has come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from cli.home import TIMEOUT, NoAnswer
from cli.install.verdict import ENFORCE, GATEWAY_API, PRIVILEGED, Facts, is_ready
from cli.kubernetes.access import Access, open_access
from cli.kubernetes.parts import CONTROLLER, NODE_DAEMON, node_pods
from cli.kubernetes.pods import output
from controller.store.interface import NotFound, Object
from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.connection import connect
from controller.store.kubernetes.errors import AlreadyExists

# In the agent's container, which has the node's view and the rights to ask the kernel.
ASK_FEATURES = (
    "python",
    "-c",
    "import json; from ebpf import features; print(json.dumps([[f.name, f.remedy] for f in features.missing()]))",
)

RBAC = "/apis/rbac.authorization.k8s.io/v1"
HOOK = "ambit-uninstall"  # all that the chart's hook consists of has this name
CGROUP_VERSION = re.compile(r"^kubelet_cgroup_version (\d+)", re.MULTILINE)  # of a kubelet's metrics
MOST_KUBELETS, KUBELETS_AT_ONCE = 50, 8  # that are asked


@dataclass(frozen=True)
class Cluster:
    """A cluster and the namespace that Ambit is in, or will be."""

    server: ApiServer
    access: Access
    namespace: str

    @classmethod
    def open(cls, kubeconfig: Path | None, context: str, namespace: str) -> Cluster:
        """Raises CommandFailed, StoreError."""
        access = open_access(kubeconfig, context)  # says better what is wrong with a kubeconfig
        return cls(connect(kubeconfig, context), access, namespace)

    def facts(self) -> Facts:
        """Raises StoreError."""
        nodes, features = self._items("/api/v1/nodes"), self._features()
        return Facts(
            version=self.server.get("/version")["gitVersion"],
            nodes=nodes,
            workloads=[*self._items("/apis/apps/v1/daemonsets"), *self._items("/apis/apps/v1/deployments")],
            resources=self._gateway_resources(),
            labels=self._labels(),
            namespace=self.namespace,
            may_install=self._may_install(),
            features=features,
            cgroups=self._cgroups(each for each in nodes if each["metadata"]["name"] not in features),
        )

    def daemon_set(self) -> Object | None:
        return self._workload("daemonsets", NODE_DAEMON)

    def deployment(self) -> Object | None:
        return self._workload("deployments", CONTROLLER)

    def pods(self) -> Sequence[Object]:
        return self._items(f"/api/v1/namespaces/{self.namespace}/pods")

    def make_namespace(self) -> None:
        """With the level of pod security that the nodes' pods need. One that is there already stays as it is."""
        metadata = {"name": self.namespace, "labels": {ENFORCE: PRIVILEGED}}
        try:
            self.server.create("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        except AlreadyExists:
            pass

    def drop_hook(self) -> None:
        """What an uninstallation that failed has left, rights to make pods among them. Raises StoreError."""
        for group, where, kinds in (
            ("/apis/batch/v1", self.namespace, ("jobs",)),
            ("/api/v1", self.namespace, ("serviceaccounts",)),
            (RBAC, self.namespace, ("rolebindings", "roles")),
            (RBAC, "", ("clusterrolebindings", "clusterroles")),
        ):
            for kind in kinds:
                self._drop(f"{group}/{f'namespaces/{where}/' if where else ''}{kind}/{HOOK}")

    def last_words(self, app: str) -> str:
        """Of the pod with this label that ended last and failed; "" when there is none."""
        pods = [pod for pod in self.pods() if pod["metadata"].get("labels", {}).get("app") == app]
        for pod in sorted(pods, key=lambda each: str(each["metadata"].get("creationTimestamp")), reverse=True):
            for status in pod.get("status", {}).get("containerStatuses") or ():
                message = status.get("state", {}).get("terminated", {}).get("message") or ""
                if message.strip():
                    return str(message.strip().splitlines()[-1])
        return ""

    # --- inside

    def _items(self, path: str) -> Sequence[Object]:
        items: Sequence[Object] = self.server.get(path)["items"]
        return items

    def _workload(self, kind: str, name: str) -> Object | None:
        found: Object | None = self._maybe(f"/apis/apps/v1/namespaces/{self.namespace}/{kind}/{name}")
        return found

    def _maybe(self, path: str) -> Any:
        try:
            return self.server.get(path)
        except NotFound:
            return None

    def _drop(self, path: str) -> None:
        try:
            self.server.delete(f"{path}?propagationPolicy=Background")  # else a job's pods outlive it
        except NotFound:
            pass

    def _gateway_resources(self) -> frozenset[str]:
        found = self._maybe(f"/apis/{GATEWAY_API}/v1") or {}
        return frozenset(each["name"] for each in found.get("resources") or ())

    def _labels(self) -> Mapping[str, str] | None:
        found = self._maybe(f"/api/v1/namespaces/{self.namespace}")
        return None if found is None else found["metadata"].get("labels") or {}

    def _may_install(self) -> bool:
        asked = {"group": "rbac.authorization.k8s.io", "resource": "clusterrolebindings", "verb": "create"}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = self.server.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer["status"].get("allowed"))

    def _cgroups(self, nodes: Iterable[Object]) -> Mapping[str, int]:
        """Of nodes that are ready, and only of some: a kubelet's metrics are a megabyte."""
        ready = (each["metadata"]["name"] for each in nodes if is_ready(each))
        with ThreadPoolExecutor(KUBELETS_AT_ONCE) as threads:
            answers = threads.map(self._cgroup_version, found := list(islice(ready, MOST_KUBELETS)))
            return {node: version for node, version in zip(found, answers, strict=True) if version is not None}

    def _cgroup_version(self, node: str) -> int | None:
        """None: the kubelet does not answer, may not be asked, or is older than the metric (Kubernetes 1.31)."""
        with self.access.client() as api:
            try:
                options = {"_request_timeout": (TIMEOUT, TIMEOUT)}
                text = CoreV1Api(api).connect_get_node_proxy_with_path(node, "metrics", **options)
            except (ApiException, HTTPError, OSError, ValueError):
                return None
        found = CGROUP_VERSION.search(text)
        return int(found[1]) if found else None

    def _features(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Of nodes where an agent runs; one that does not answer is judged by its versions."""
        if self.daemon_set() is None:
            return {}
        pods = [pod for pod in self.pods() if pod["metadata"].get("labels", {}).get("app") == NODE_DAEMON]
        found = {}
        for node, pod in node_pods(pods).items():
            try:
                missing = json.loads(output(self.access, pod, "agent", ASK_FEATURES))
            except (NoAnswer, ValueError):
                continue
            found[node] = [(name, remedy) for name, remedy in missing]
        return found
