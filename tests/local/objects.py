"""Objects for tests, as short as they can be."""

from __future__ import annotations

from typing import Any

from deploy.local.controllers.actions import Picture, picture

NOW = "2026-01-01T00:00:00Z"


def namespace(name: str = "shop") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": f"ns-{name}"}}


def account(name: str = "default", space: str = "shop") -> dict[str, Any]:
    metadata = {"name": name, "namespace": space, "uid": f"sa-{name}"}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def node(name: str, ready: bool = True, **labels: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    metadata = {"name": name, "uid": name, "labels": {"kubernetes.io/hostname": name, **labels}}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"conditions": conditions}}


def pod(name: str, ready: bool = True, ips: tuple[str, ...] = ("10.244.1.2", "fd00::2"), **spec: Any) -> dict[str, Any]:
    status = {
        "phase": "Running",
        "podIPs": [{"ip": ip} for ip in ips],
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    containers = [{"name": "main", "ports": [{"name": "http", "containerPort": 8080}]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": f"pod-{name}", "labels": {"app": name.split("-")[0]}},
        "spec": {"containers": containers, **spec},
        "status": status,
    }


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    metadata = {"name": name, "namespace": "shop", "uid": f"svc-{name}", "creationTimestamp": NOW}
    whole = {"selector": {"app": "web"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": whole}


def deployment(replicas: int = 2, image: str = "ambit/echo", **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}]}}
    whole = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template, **spec}
    metadata = {"name": "web", "namespace": "shop", "uid": "deployment-web", "generation": 1}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": whole}


def seen(*objects: dict[str, Any]) -> Picture:
    return picture(objects)
