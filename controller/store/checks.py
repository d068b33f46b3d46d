"""Whether an object is well formed: names, types, and the rules of the fields that the mesh reads. Pure.

The rules are those of the Kubernetes API server (k8s.io/apimachinery pkg/util/validation, pkg/apis/*/validation), so
that what is good here is good there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import msgspec

from controller.store import gateway_shapes, policy_checks, policy_shapes, shapes
from controller.store.finding import Finding
from controller.store.interface import Kind, Object
from controller.store.yaml_text import Path

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"  # RFC 1123 label
_DNS_LABEL = re.compile(_LABEL)
_DNS_SUBDOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9]|-(?!-)){0,14}(?<!-)")  # RFC 6335 section 5.1

# Kinds whose names become one DNS label; all others may have dots.
_NAMED_BY_LABEL = frozenset({"Namespace", "Service"})


# Of kinds of which more than the metadata is read.
_SHAPES: dict[str, type[shapes.Shape]] = {
    "Pod": shapes.Pod,
    "Deployment": shapes.Deployment,
    "Service": shapes.Service,
    "EndpointSlice": shapes.EndpointSlice,
    "AuthorizationPolicy": policy_shapes.AuthorizationPolicy,
    "PeerAuthentication": policy_shapes.PeerAuthentication,
    **gateway_shapes.SHAPES,
}


def check(obj: Object, kind: Kind) -> list[Finding]:
    """All that is wrong with an object of this kind; later checks rely on what earlier ones found right."""
    found = list(_types(obj, shapes.AnyObject))
    shape = _SHAPES.get(kind.kind, shapes.AnyObject)
    if not found:
        found = [*_names(obj, kind), *_types(obj, shape)]
    rules = _RULES.get(kind.kind)
    if not found and rules is not None:
        found = list(rules(msgspec.convert(obj, shape)))
    return found


# --- types


def _types(obj: Object, shape: type[shapes.Shape]) -> Iterator[Finding]:
    try:
        msgspec.convert(obj, shape)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        path = _path(where.removesuffix("`"), obj)
        yield Finding(path, _speak(reason, _at(obj, path)))


def _path(text: str, obj: Any) -> Path:
    """From msgspec's notation; its [...] (some key of a mapping) becomes the first key whose value is not text."""
    path: Path = ()
    for name, index in re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", text):
        if index == "...":
            mapping = _at(obj, path)
            name = next((key for key, value in mapping.items() if not isinstance(value, str)), "")
        path = (*path, int(index) if index.isdigit() else name)
    return path


def _at(obj: Any, path: Path) -> Any:
    for part in path:
        obj = obj[part]
    return obj


_TYPE_WORDS = {
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "float": "a number",
    "null": "nothing",
}


def _speak(reason: str, value: Any) -> str:
    """msgspec's reason in the words of people who write manifests."""
    missing = re.fullmatch(r"Object missing required field `(\w+)`", reason)
    if missing:
        return f"{missing[1]} is missing"
    expected = re.match(r"Expected `([^`]+)`(.*)", reason)
    if not expected:
        return f"{value!r} is not one of the allowed values"
    types = [_TYPE_WORDS.get(name, name) for name in expected[1].split(" | ")]
    bound = re.match(r" ([<>]=) (\d+)", expected[2])
    limits = f" {'at least' if bound[1] == '>=' else 'at most'} {bound[2]}" if bound else ""
    return f"must be {' or '.join(types)}{limits}, not {_show(value)}"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "a mapping" if isinstance(value, Mapping) else "a list" if isinstance(value, list | tuple) else repr(value)


# --- names and labels


def _names(obj: Object, kind: Kind) -> Iterator[Finding]:
    metadata = obj["metadata"]
    pattern, words = (
        (_DNS_LABEL, "lower-case letters, digits and -, at most 63")
        if kind.kind in _NAMED_BY_LABEL
        else (_DNS_SUBDOMAIN, "lower-case letters, digits, - and .")
    )
    name, namespace = metadata.get("name", ""), metadata.get("namespace", "")
    if not name:
        yield Finding(("metadata",), "name is missing")
    elif len(name) > 253 or not pattern.fullmatch(name):
        yield Finding(("metadata", "name"), f"{name!r} is not a name (RFC 1123: {words})")
    if namespace and not kind.namespaced:
        yield Finding(("metadata", "namespace"), f"a {kind.kind} is in no namespace")
    elif namespace and not _DNS_LABEL.fullmatch(namespace):
        yield Finding(("metadata", "namespace"), f"{namespace!r} is not a name (RFC 1123)")
    yield from _labels(metadata.get("labels", {}), ("metadata", "labels"))
    for key in metadata.get("annotations", {}):
        if not _is_qualified(key.lower()):
            yield Finding(("metadata", "annotations", key), "is not an annotation name: [prefix/]name")


def _labels(labels: Mapping[str, str], path: Path) -> Iterator[Finding]:
    for key, value in labels.items():
        if not _is_qualified(key):
            yield Finding((*path, key), "is not a label name: [prefix/]name")
        elif not _LABEL_VALUE.fullmatch(value):
            yield Finding((*path, key), f"{value!r} is not a label value (letters, digits, -, _ and ., at most 63)")


def _is_qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    return bool(_LABEL_NAME.fullmatch(name)) and (not slash or bool(_DNS_SUBDOMAIN.fullmatch(prefix)))


# --- rules by kind


def _pod(pod: shapes.Pod) -> Iterator[Finding]:
    yield from _pod_spec(pod.spec, ("spec",))
    for number, ip in enumerate(pod.status.pod_ips):
        yield from _ip(ip.ip, ("status", "podIPs", number, "ip"))
    if pod.status.pod_ip:
        yield from _ip(pod.status.pod_ip, ("status", "podIP"))


def _pod_spec(spec: shapes.PodSpec, path: Path) -> Iterator[Finding]:
    if not spec.containers:
        yield Finding((*path, "containers"), "needs at least one container")
    names: Counter[str] = Counter()
    for field, containers in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for number, container in enumerate(containers):
            here = (*path, field, number)
            names[container.name] += 1
            if not _DNS_LABEL.fullmatch(container.name) or names[container.name] > 1:
                yield Finding((*here, "name"), f"{container.name!r} is not a name of its own (RFC 1123 label)")
            yield from _container_ports(container, here)
    if not _DNS_SUBDOMAIN.fullmatch(spec.service_account_name):
        yield Finding((*path, "serviceAccountName"), f"{spec.service_account_name!r} is not a name (RFC 1123)")


def _container_ports(container: shapes.Container, path: Path) -> Iterator[Finding]:
    names: Counter[str] = Counter()
    for number, port in enumerate(container.ports):
        names[port.name] += 1
        if port.name and (not _PORT_NAME.fullmatch(port.name) or names[port.name] > 1):
            yield Finding((*path, "ports", number, "name"), f"{port.name!r} is not a port name of its own (RFC 6335)")


def _deployment(deployment: shapes.Deployment) -> Iterator[Finding]:
    template, selector = deployment.spec.template, deployment.spec.selector
    yield from _labels(template.metadata.labels, ("spec", "template", "metadata", "labels"))
    if not selector.match_labels and not selector.match_expressions:
        yield Finding(("spec", "selector"), "matchLabels is missing")
    elif not selector.match_labels.items() <= template.metadata.labels.items():
        yield Finding(
            ("spec", "selector", "matchLabels"), "does not select the labels of spec.template.metadata.labels"
        )
    yield from _pod_spec(template.spec, ("spec", "template", "spec"))


def _service(service: shapes.Service) -> Iterator[Finding]:
    spec = service.spec
    if spec.type == "ExternalName":
        if not _DNS_SUBDOMAIN.fullmatch(spec.external_name.rstrip(".")):
            yield Finding(("spec", "externalName"), f"{spec.external_name!r} is not a host name")
        return
    if not spec.ports and spec.cluster_ip != "None":
        yield Finding(("spec",), "ports is missing")
    if spec.cluster_ip not in ("", "None"):
        yield from _ip(spec.cluster_ip, ("spec", "clusterIP"))
    for number, address in enumerate(spec.cluster_ips):
        if address != "None":
            yield from _ip(address, ("spec", "clusterIPs", number))
    yield from _service_ports(spec.ports)


def _service_ports(ports: tuple[shapes.ServicePort, ...]) -> Iterator[Finding]:
    names = Counter(port.name for port in ports)
    numbers = Counter((port.protocol, port.port) for port in ports)
    for number, port in enumerate(ports):
        here: Path = ("spec", "ports", number)
        if not port.name and len(ports) > 1:
            yield Finding(here, "name is missing (every port needs one when there are several)")
        elif port.name and (not _DNS_LABEL.fullmatch(port.name) or names[port.name] > 1):
            yield Finding((*here, "name"), f"{port.name!r} is not a port name of its own (RFC 1123 label)")
        if numbers[port.protocol, port.port] > 1:
            yield Finding((*here, "port"), f"{port.protocol} port {port.port} is there twice")
        if isinstance(port.target_port, str) and not _PORT_NAME.fullmatch(port.target_port):
            yield Finding((*here, "targetPort"), f"{port.target_port!r} is neither a port number nor a port name")


def _endpoint_slice(piece: shapes.EndpointSlice) -> Iterator[Finding]:
    for number, endpoint in enumerate(piece.endpoints):
        here: Path = ("endpoints", number, "addresses")
        if not endpoint.addresses:
            yield Finding(here, "needs at least one address")
        for position, address in enumerate(endpoint.addresses):
            if piece.address_type != "FQDN":
                yield from _ip(address, (*here, position), piece.address_type)


def _ip(text: str, path: Path, family: str = "") -> Iterator[Finding]:
    try:
        version = f"IPv{ip_address(text).version}"
    except ValueError:
        yield Finding(path, f"{text!r} is not an IP address")
        return
    if family and family != version:
        yield Finding(path, f"{text} is not of address type {family}")


_RULES: dict[str, Callable[[Any], Iterator[Finding]]] = {
    "Pod": _pod,
    "Deployment": _deployment,
    "Service": _service,
    "EndpointSlice": _endpoint_slice,
    "AuthorizationPolicy": policy_checks.authorization_policy,
    "PeerAuthentication": policy_checks.peer_authentication,
}
