"""EndpointSlices of services with a selector: one per service and address family (a mesh on one machine is small)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from controller.store.interface import Object
from deploy.local.controllers.actions import Action, Apply, Delete, Picture
from deploy.local.controllers.service_addresses import families
from deploy.local.objects import condition, is_terminal, is_terminating, key, labels, namespace, uid

SERVICE_LABEL = "kubernetes.io/service-name"
MANAGER_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"


def reconcile(picture: Picture) -> Iterator[Action]:
    wanted = {key(each): each for service in picture.of("Service") for each in _slices(service, picture.of("Pod"))}
    for found in picture.of("EndpointSlice"):
        if labels(found).get(MANAGER_LABEL) != MANAGER:
            continue
        mine = wanted.pop(key(found), None)
        if mine is None:
            yield Delete(key(found))
        elif any(found.get(name) != mine[name] for name in ("addressType", "endpoints", "ports")):
            yield Apply(mine)
    yield from (Apply(each) for each in wanted.values())


def _slices(service: Object, pods: tuple[Object, ...]) -> Iterator[dict[str, Any]]:
    spec = service["spec"]
    if not spec.get("selector") or spec.get("type") == "ExternalName" or is_terminating(service):
        return
    members = [pod for pod in pods if namespace(pod) == namespace(service) and _belongs(pod, spec["selector"])]
    for family in families(service):
        yield from _of_family(service, members, family)


def _belongs(pod: Object, selector: dict[str, str]) -> bool:
    chosen = all(labels(pod).get(name) == value for name, value in selector.items())
    return chosen and not is_terminal(pod) and bool(pod.get("status", {}).get("podIPs"))


def _of_family(service: Object, pods: list[Object], family: str) -> Iterator[dict[str, Any]]:
    """One slice for each set of port numbers: a named target port may differ from pod to pod."""
    by_ports: dict[tuple[tuple[str, str, int], ...], list[Object]] = {}
    for pod in sorted(pods, key=lambda each: str(each["metadata"]["name"])):
        by_ports.setdefault(_ports(service, pod), []).append(pod)
    if not by_ports:
        by_ports[()] = []
    for ports, members in by_ports.items():
        endpoints = [each for pod in members for each in _endpoint(service, pod, family)]
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": _name(service, family, ports),
                "namespace": namespace(service),
                "labels": {SERVICE_LABEL: service["metadata"]["name"], MANAGER_LABEL: MANAGER},
                "ownerReferences": [_owner(service)],
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol, port in ports],
        }


def _name(service: Object, family: str, ports: tuple[tuple[str, str, int], ...]) -> str:
    digest = hashlib.sha256(f"{uid(service)} {family} {ports}".encode()).hexdigest()[:5]
    return f"{service['metadata']['name'][:57]}-{digest}"


def _owner(service: Object) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Service", "name": service["metadata"]["name"], "uid": uid(service)}
    return {**owner, "controller": True, "blockOwnerDeletion": True}


def _ports(service: Object, pod: Object) -> tuple[tuple[str, str, int], ...]:
    """(name, protocol, number) of the service's ports as this pod has them; a name that it has not is left out."""
    found = ((each, target_port(each, pod)) for each in service["spec"].get("ports") or ())
    return tuple((each.get("name", ""), each.get("protocol", "TCP"), port) for each, port in found if port)


def target_port(port: Any, pod: Object) -> int | None:
    """The number of a service port's target on a pod; None when it is a name that no container port has."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int) or str(target).isdigit():
        return int(target) or int(port["port"])
    protocol = port.get("protocol", "TCP")
    for container in pod["spec"]["containers"]:
        for each in container.get("ports") or ():
            if each.get("name") == target and each.get("protocol", "TCP") == protocol:
                return int(each["containerPort"])
    return None


def _endpoint(service: Object, pod: Object, family: str) -> Iterator[dict[str, Any]]:
    addresses = [each["ip"] for each in pod["status"]["podIPs"] if (":" in each["ip"]) == (family == "IPv6")]
    if not addresses:
        return
    serving = condition(pod, "Ready")
    metadata, spec = pod["metadata"], pod["spec"]
    endpoint: dict[str, Any] = {
        "addresses": addresses[:1],
        "conditions": {
            "ready": (serving and not is_terminating(pod)) or bool(service["spec"].get("publishNotReadyAddresses")),
            "serving": serving,
            "terminating": is_terminating(pod),
        },
        "nodeName": spec.get("nodeName", ""),
        "targetRef": {"kind": "Pod", "name": metadata["name"], "namespace": namespace(pod), "uid": uid(pod)},
    }
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = spec["hostname"]
    yield endpoint
