"""What a user may call a resource, and how `get` shows it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from controller.store.interface import Object
from mesh.model.enrolment import DATAPLANE_MODE, REDIRECTION

# kubectl's short names (kubectl api-resources).
SHORT_NAMES = {
    "po": "pods",
    "svc": "services",
    "ns": "namespaces",
    "no": "nodes",
    "sa": "serviceaccounts",
    "deploy": "deployments",
    "ep": "endpointslices",
    "gtw": "gateways",
}

Row = tuple[Any, ...]


def age(obj: Object, now: datetime) -> str:
    """As kubectl has it: 42s, 12m, 5h, 3d."""
    created = obj.get("metadata", {}).get("creationTimestamp")
    if not created:
        return ""
    seconds = int((now - datetime.fromisoformat(str(created).replace("Z", "+00:00"))).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(seconds, 0)}s"


def _pod(pod: Object) -> Row:
    status = pod.get("status", {})
    states = status.get("containerStatuses", [])
    ready = f"{sum(bool(state.get('ready')) for state in states)}/{len(pod['spec'].get('containers', []))}"
    mesh = pod["metadata"].get("annotations", {}).get(REDIRECTION, "")
    return (
        ready,
        status.get("reason") or status.get("phase", "Pending"),
        sum(int(state.get("restartCount", 0)) for state in states),
        mesh,
        status.get("podIP", ""),
        pod["spec"].get("nodeName", ""),
    )


def _service(service: Object) -> Row:
    spec = service["spec"]
    ports = ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in spec.get("ports", []))
    return spec.get("type", "ClusterIP"), ",".join(spec.get("clusterIPs") or [spec.get("clusterIP", "")]), ports


def _deployment(deployment: Object) -> Row:
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    return f"{status.get('readyReplicas', 0)}/{wanted}", status.get("updatedReplicas", 0)


def _namespace(namespace: Object) -> Row:
    status = namespace.get("status", {}).get("phase", "Active")
    return status, namespace["metadata"].get("labels", {}).get(DATAPLANE_MODE, "")


def _node(node: Object) -> Row:
    conditions = {entry["type"]: entry["status"] for entry in node.get("status", {}).get("conditions", [])}
    addresses = [
        entry["address"] for entry in node.get("status", {}).get("addresses", []) if entry["type"] == "InternalIP"
    ]
    return "Ready" if conditions.get("Ready") == "True" else "NotReady", addresses


def _slice(endpoints: Object) -> Row:
    addresses = [address for endpoint in endpoints.get("endpoints") or [] for address in endpoint.get("addresses", [])]
    return endpoints.get("addressType", ""), [port.get("port") for port in endpoints.get("ports") or []], addresses


def _policy(policy: Object) -> Row:
    conditions = {entry["type"]: entry["status"] for entry in policy.get("status", {}).get("conditions", [])}
    return policy.get("spec", {}).get("action", "ALLOW"), conditions.get("ZtunnelAccepted", "")


def _authentication(policy: Object) -> Row:
    return (policy.get("spec", {}).get("mtls", {}).get("mode", "UNSET"),)


Columns = tuple[Sequence[str], Callable[[Object], Row]]
COLUMNS: Mapping[str, Columns] = {
    "Pod": (("READY", "STATUS", "RESTARTS", "MESH", "IP", "NODE"), _pod),
    "Service": (("TYPE", "CLUSTER-IP", "PORTS"), _service),
    "Deployment": (("READY", "UP-TO-DATE"), _deployment),
    "Namespace": (("STATUS", "DATAPLANE-MODE"), _namespace),
    "Node": (("STATUS", "INTERNAL-IP"), _node),
    "AuthorizationPolicy": (("ACTION", "ENFORCED"), _policy),
    "PeerAuthentication": (("MODE",), _authentication),
    "EndpointSlice": (("ADDRESSTYPE", "PORTS", "ENDPOINTS"), _slice),
}


def rows(kind: str, namespaced: bool, objects: Sequence[Object]) -> tuple[list[str], list[Row]]:
    """The table for objects of one kind: namespace (when it has one), name, the kind's own columns, age."""
    columns, describe = COLUMNS.get(kind, ((), lambda _: ()))
    now = datetime.now(UTC)
    head = [*(["NAMESPACE"] if namespaced else []), "NAME", *columns, "AGE"]
    body = []
    for obj in objects:
        metadata = obj["metadata"]
        names = (metadata.get("namespace", ""), metadata["name"]) if namespaced else (metadata["name"],)
        body.append((*names, *describe(obj), age(obj, now)))
    return head, body
