"""Short ways to write objects of the Gateway API."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]
GROUP = "gateway.networking.k8s.io"
LISTENER = {"name": "mesh", "port": 15008, "protocol": "HBONE"}


def _object(kind: str, name: str, namespace: str | None, spec: Object, metadata: Object, version: str = "v1") -> Object:
    place = {"namespace": namespace} if namespace is not None else {}
    uid = f"uid-of-{kind}-{namespace}-{name}"
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": kind,
        "metadata": {"name": name, "uid": uid, "generation": 1, **place, **metadata},
        "spec": spec,
    }


def gateway(
    name: str = "gate",
    namespace: str = "shop",
    waypoint_for: str = "",
    account: str = "",
    listeners: Any = None,
    allowed: Any = None,
    class_name: str = "ambit-waypoint",
    **metadata: Any,
) -> Object:
    listener = LISTENER | ({"allowedRoutes": {"namespaces": allowed}} if allowed else {})
    labels = {"istio.io/waypoint-for": waypoint_for} if waypoint_for else {}
    notes = {"ambit.io/for-service-account": account} if account else {}
    spec = {"gatewayClassName": class_name, "listeners": [listener] if listeners is None else listeners}
    return _object("Gateway", name, namespace, spec, {"labels": labels, "annotations": notes, **metadata})


def gateway_class(name: str = "ambit-waypoint", controller: str = "ambit.io/waypoint-controller") -> Object:
    return _object("GatewayClass", name, None, {"controllerName": controller}, {})


def to_service(name: str = "web", port: int | None = None, **more: Any) -> Object:
    """A parentRef."""
    return {"group": "", "kind": "Service", "name": name, **({"port": port} if port else {}), **more}


def backend(name: str = "web", port: int | None = 80, **more: Any) -> Object:
    return {"name": name, **({"port": port} if port else {}), **more}


def route(
    kind: str = "HTTPRoute",
    name: str = "route",
    namespace: str = "shop",
    rules: Any = None,
    parents: Any = None,
    version: str = "v1",
    created: str = "2026-01-01T00:00:00Z",
    **spec: Any,
) -> Object:
    rules = [{"backendRefs": [backend()]}] if rules is None else rules
    whole = {"parentRefs": [to_service()] if parents is None else parents, "rules": rules, **spec}
    return _object(kind, name, namespace, whole, {"creationTimestamp": created}, version)


def grant(namespace: str = "bank", of: str = "shop", kind: str = "HTTPRoute", name: str = "") -> Object:
    to = {"group": "", "kind": "Service"} | ({"name": name} if name else {})
    spec = {"from": [{"group": GROUP, "kind": kind, "namespace": of}], "to": [to]}
    return _object("ReferenceGrant", "grant", namespace, spec, {}, "v1beta1")


def policy(
    name: str = "policy", namespace: str = "shop", targets: Any = None, notes: Any = None, **spec: Any
) -> Object:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace, "generation": 1, "annotations": notes or {}},
        "spec": {**({"targetRefs": targets} if targets else {}), **spec},
    }
