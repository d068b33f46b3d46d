"""What a cluster with Ambit in it has: a namespace, service accounts with their rights, nodes' pods with tokens."""

from __future__ import annotations

import itertools
from typing import Any

from controller.store.interface import Key, Kind
from controller.store.kinds import NAMESPACE, POD, SERVICE_ACCOUNT
from controller.store.kubernetes import paths
from controller.store.kubernetes.api import ApiServer
from tests.store.apiserver import Server, ensure

ROLE = Kind("rbac.authorization.k8s.io", "v1", "Role", "roles")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings")
CLUSTER_ROLE = Kind("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", namespaced=False)
CLUSTER_ROLE_BINDING = Kind(
    "rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
)
CONTROLLER, NODE_ACCOUNT = "ambit-controller", "ambit-node"
_READ = ["get", "list", "watch"]
_ROUTES = ["httproutes", "grpcroutes", "tlsroutes", "tcproutes"]
_numbers = itertools.count(1)


def _rule(group: str, resources: list[str], verbs: list[str], *names: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs, "resourceNames": list(names)}


# All that the controller does, and nothing else.
IN_CLUSTER = [
    _rule("", ["namespaces", "nodes", "pods", "services"], _READ),
    _rule("discovery.k8s.io", ["endpointslices"], _READ),
    _rule("", ["pods/status", "services/status"], ["patch"]),
    _rule("security.istio.io", ["authorizationpolicies", "peerauthentications"], _READ),
    _rule("security.istio.io", ["authorizationpolicies/status", "peerauthentications/status"], ["patch"]),
    _rule("gateway.networking.k8s.io", ["gatewayclasses", "gateways", "referencegrants", *_ROUTES], _READ),
    _rule("gateway.networking.k8s.io", ["gatewayclasses"], ["create", "patch"]),
    _rule(
        "gateway.networking.k8s.io",
        ["gatewayclasses/status", "gateways/status", *(f"{each}/status" for each in _ROUTES)],
        ["patch"],
    ),
    _rule("apps", ["deployments"], ["get", "create", "patch"]),
    _rule("", ["serviceaccounts"], ["get", "create", "patch"]),
    _rule("", ["services"], ["create", "patch"]),
    _rule("authentication.k8s.io", ["tokenreviews"], ["create"]),
]
IN_NAMESPACE = [
    _rule("", ["secrets", "configmaps"], ["create"]),
    _rule("", ["secrets"], ["get"], "ambit-ca"),
    _rule("", ["configmaps"], ["get", "patch"], "ambit-ca-root-cert"),
    _rule("coordination.k8s.io", ["leases"], ["create"]),
    _rule("coordination.k8s.io", ["leases"], ["get", "update"], "ambit-controller"),
]


class System:
    """One installation, in a namespace of its own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.api: ApiServer = server.api()
        self.namespace = f"ambit-system-{next(_numbers)}"
        ensure(self.api, NAMESPACE, {"metadata": {"name": self.namespace}})
        for account in (CONTROLLER, NODE_ACCOUNT, "other"):
            ensure(self.api, SERVICE_ACCOUNT, {"metadata": self._named(account)})
        self._grant()

    def _named(self, name: str) -> dict[str, str]:
        return {"name": name, "namespace": self.namespace}

    def _grant(self) -> None:
        subject = {"kind": "ServiceAccount", **self._named(CONTROLLER)}
        for role, binding, rules, metadata in (
            (CLUSTER_ROLE, CLUSTER_ROLE_BINDING, IN_CLUSTER, {"name": self.namespace}),
            (ROLE, ROLE_BINDING, IN_NAMESPACE, self._named(CONTROLLER)),
        ):
            ensure(self.api, role, {"metadata": metadata, "rules": rules})
            reference = {"apiGroup": role.group, "kind": role.kind, "name": metadata["name"]}
            ensure(self.api, binding, {"metadata": metadata, "subjects": [subject], "roleRef": reference})

    def controller_token(self) -> str:
        return self.token(CONTROLLER, seconds=3600)  # it works longer than a test

    def node_pod(self, node: str, name: str = "", account: str = NODE_ACCOUNT) -> Key:
        """A pod as the DaemonSet makes it; on no node yet when `node` is empty."""
        key = Key("Pod", self.namespace, name or f"ambit-node-{next(_numbers)}")
        spec: dict[str, Any] = {"serviceAccountName": account, "containers": [{"name": "ztunnel", "image": "ztunnel"}]}
        if node:
            spec["nodeName"] = node
        ensure(self.api, POD, {"metadata": self._named(key.name), "spec": spec})
        return key

    def token(
        self,
        account: str = NODE_ACCOUNT,
        pod: Key | None = None,
        audience: str = "",
        seconds: int = 600,
    ) -> str:
        """As a kubelet asks for it (TokenRequest), bound to a pod when one is given."""
        spec: dict[str, Any] = {"expirationSeconds": seconds, "audiences": [audience] if audience else []}
        if pod is not None:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod.name}
        path = paths.of(SERVICE_ACCOUNT, account, self.namespace, "token")
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.api.create(path, request)["status"]["token"])

    def bind(self, pod: Key, node: str) -> None:
        """As a scheduler does."""
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod.name}, "target": target}
        self.api.create(paths.of(POD, pod.name, pod.namespace, "binding"), binding)

    def remove(self, pod: Key) -> None:
        self.api.delete(paths.of(POD, pod.name, pod.namespace) + "?gracePeriodSeconds=0")
