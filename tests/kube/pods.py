"""Manifests of the pods that tests need; all of them run the tests' own programs and end at once when deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

PORT = 7000
Object = dict[str, Any]


def pod_spec(command: Sequence[str], node: str = "", **more: Any) -> Object:
    container = {"name": "main", "image": "APPS", "imagePullPolicy": "IfNotPresent", "command": [*command]}
    spec = {"terminationGracePeriodSeconds": 0, "containers": [container], **more}
    return {**spec, "nodeName": node} if node else spec


def pod(namespace: str, name: str, command: Sequence[str], node: str = "", **more: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(command, node, **more)}


def server(namespace: str, name: str, node: str = "") -> Object:
    """Answers lines on PORT; ready once it does."""
    made = pod(namespace, name, ("/traffic", "serve", str(PORT)), node)
    made["spec"]["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": PORT}, "periodSeconds": 1}
    return made


def idle(namespace: str, name: str, node: str = "") -> Object:
    """For programs that are run in it."""
    return pod(namespace, name, ("/probe", "wait"), node)


def deployment(namespace: str, name: str, replicas: int, command: Sequence[str], **more: Any) -> Object:
    """All replicas of an update come at once."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec(command, **more)},
        },
    }


def service(namespace: str, name: str, port: int = PORT, **more: Any) -> Object:
    spec = {"selector": {"app": name}, "ipFamilyPolicy": "PreferDualStack", "ports": [{"port": port}], **more}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def manifest(*objects: Object) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
