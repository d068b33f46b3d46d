"""The objects that a waypoint consists of: its ServiceAccount, its Deployment, its Service. Pure.

Names, labels and environment are those of Istio's waypoints (istio-discovery/files/waypoint.yaml), so that its tools
find them. All are owned by the Gateway and go with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controller.compile.gateways import CONTROLLER, GATEWAY_NAME, Waypoint
from controller.compile.options import MeshOptions
from controller.store.gateway_shapes import GROUP, Gateway
from mesh.model.enrolment import DATAPLANE_MODE, NONE
from mesh.model.ports import HBONE, METRICS, READINESS

CLASS_NAME = "gateway.networking.k8s.io/gateway-class-name"
MANAGED = "gateway.istio.io/managed"
ROOTS = "ambit.io/ca-roots"  # annotation on the pods: the CA's roots, so that they need no ConfigMap in each namespace
TOKEN_FILE, ROOTS_FILE = "istio-token", "root-cert.pem"
TOKEN_SECONDS = 43200  # as Istio's
AUDIENCE = "istio-ca"
USER = 65532  # "nonroot" of distroless images
GRACE_SECONDS = 30  # Kubernetes' default: for connections under way when a pod ends
CPU, MEMORY = "20m", "48Mi"  # an idle waypoint needs less

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Runtime:
    """How waypoints run here. `controller` is "host:port"; `secrets` is where their token and the roots are mounted."""

    image: str
    command: tuple[str, ...]
    controller: str
    roots: str
    secrets: str = "/var/run/secrets/ambit"
    environment: tuple[tuple[str, str], ...] = ()
    user: int = USER


def objects_of(gateway: Gateway, waypoint: Waypoint, runtime: Runtime, options: MeshOptions) -> tuple[Object, ...]:
    """In the order in which they are made."""
    account = _object(gateway, "v1", "ServiceAccount")
    service = _object(gateway, "v1", "Service") | {"spec": _service_spec(waypoint)}
    deployment = _object(gateway, "apps/v1", "Deployment")
    deployment["spec"] = {
        "replicas": 1,
        "selector": {"matchLabels": {GATEWAY_NAME: waypoint.name}},
        # The next one serves before this one goes.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {"metadata": _pod_metadata(gateway, runtime), "spec": _pod_spec(waypoint, runtime, options)},
    }
    # A service account that the Gateway names instead is somebody else's.
    own = (account,) if waypoint.runs_as == waypoint.name else ()
    return (*own, service, deployment)


def is_owned(obj: Any, gateway: Gateway) -> bool:
    owners = obj["metadata"].get("ownerReferences") or ()
    return any((each.get("kind"), each.get("uid")) == ("Gateway", gateway.metadata.uid) for each in owners)


def _object(gateway: Gateway, api_version: str, kind: str) -> Object:
    metadata = gateway.metadata
    owner = {"apiVersion": f"{GROUP}/v1", "kind": "Gateway", "name": metadata.name, "uid": metadata.uid}
    named: Object = {"name": metadata.name, "namespace": metadata.namespace, "labels": _labels(gateway)}
    if gateway.spec.infrastructure.annotations:
        named["annotations"] = dict(gateway.spec.infrastructure.annotations)
    return {"apiVersion": api_version, "kind": kind, "metadata": {**named, "ownerReferences": [owner]}}


def _labels(gateway: Gateway) -> dict[str, str]:
    return {
        **gateway.spec.infrastructure.labels,
        GATEWAY_NAME: gateway.metadata.name,
        CLASS_NAME: gateway.spec.gateway_class_name,
        MANAGED: CONTROLLER.replace("/", "-"),
    }


def _service_spec(waypoint: Waypoint) -> Object:
    return {
        "type": "ClusterIP",
        "ipFamilyPolicy": "PreferDualStack",
        "selector": {GATEWAY_NAME: waypoint.name},
        "ports": [
            {"name": "status-port", "port": READINESS, "protocol": "TCP", "targetPort": READINESS},
            {"name": "mesh", "port": HBONE, "protocol": "TCP", "targetPort": HBONE, "appProtocol": "hbone"},
        ],
    }


def _pod_metadata(gateway: Gateway, runtime: Runtime) -> Object:
    notes = {
        **gateway.spec.infrastructure.annotations,
        ROOTS: runtime.roots,
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(METRICS),
        "prometheus.io/path": "/metrics",
    }
    # Not captured, and itself a tunnel's end.
    return {
        "labels": {**_labels(gateway), DATAPLANE_MODE: NONE, "networking.istio.io/tunnel": "http"},
        "annotations": notes,
    }


def _pod_spec(waypoint: Waypoint, runtime: Runtime, options: MeshOptions) -> Object:
    probe = {"httpGet": {"path": "/healthz/ready", "port": READINESS}}
    container = {
        "name": "waypoint",
        "image": runtime.image,
        "command": list(runtime.command),
        "env": _environment(waypoint, runtime, options),
        "ports": [
            {"name": "mesh", "containerPort": HBONE},
            {"name": "metrics", "containerPort": METRICS},
            {"name": "status-port", "containerPort": READINESS},
        ],
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**probe, "periodSeconds": 5, "failureThreshold": 2},
        "resources": {"requests": {"cpu": CPU, "memory": MEMORY}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": runtime.user != 0,
            "runAsUser": runtime.user,
            "runAsGroup": runtime.user,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "mesh-identity", "mountPath": runtime.secrets, "readOnly": True}],
    }
    token = {"path": TOKEN_FILE, "audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS}
    roots = {"path": ROOTS_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{ROOTS}']"}}
    sources = [{"serviceAccountToken": token}, {"downwardAPI": {"items": [roots]}}]
    return {
        "serviceAccountName": waypoint.runs_as,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {"fsGroup": runtime.user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "mesh-identity", "projected": {"sources": sources}}],
    }


def _environment(waypoint: Waypoint, runtime: Runtime, options: MeshOptions) -> list[Object]:
    own = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "SERVICE_ACCOUNT": "spec.serviceAccountName",
        "NODE_NAME": "spec.nodeName",
        "INSTANCE_IP": "status.podIP",
    }
    control, roots = f"https://{runtime.controller}", f"{runtime.secrets}/{ROOTS_FILE}"
    given = {
        "GATEWAY_NAME": waypoint.name,
        "XDS_ADDRESS": control,
        "CA_ADDRESS": control,
        "XDS_ROOT_CA": roots,
        "CA_ROOT_CA": roots,
        "AUTH_TOKEN": f"{runtime.secrets}/{TOKEN_FILE}",
        "CLUSTER_ID": options.cluster_id,
        "CLUSTER_DOMAIN": options.cluster_domain,
        "TRUST_DOMAIN": options.trust_domain,
        "TERMINATION_GRACE_PERIOD_SECONDS": str(GRACE_SECONDS),
        **dict(runtime.environment),
    }
    fields = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in own.items()]
    return [*fields, *({"name": name, "value": value} for name, value in given.items())]
