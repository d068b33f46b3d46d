"""What the words of a question mean to the client that it is about: resolved as its ztunnel resolves names."""

from __future__ import annotations

from dataclasses import dataclass

from cli.errors import fail
from mesh.model.address import Ip, canonical, is_ip, split_authority
from mesh.model.state import MeshState
from mesh.model.workload import Service, Workload
from ztunnel.dns.message import A_RECORD, AAAA_RECORD, INTERNET, Question, Records
from ztunnel.dns.resolve import Client, Zone, resolve

HTTP_PORT = 80


@dataclass(frozen=True, slots=True)
class Meant:
    """The addresses that an app would dial, and the name by which a request would call the host."""

    addresses: tuple[Ip, ...]
    port: int
    host: str
    how: str  # how the word became addresses, in words


def source(mesh: MeshState, namespace: str, name: str) -> Workload | None:
    """The workload of a pod, as a ztunnel knows it."""
    for workload in mesh.snapshot().workloads:
        if (workload.namespace, workload.name) == (namespace, name) and "//Pod/" in workload.uid:
            return workload
    return None


def destination(mesh: MeshState, client: Workload, word: str, port: int = 0) -> Meant:
    """DST is an address, a name that the client's resolver knows, a pod (pod, namespace/pod) or a Service
    (namespace/service); "pod/..." and "svc/..." say which. Raises CommandFailed."""
    if is_ip(word):
        found = mesh.service_at(client.network, canonical(word), client.namespace)
        return Meant((canonical(word),), port or _port(found), word, "an address")
    kind, _, rest = word.rpartition("/") if word.startswith(("pod/", "svc/", "service/")) else ("", "", word)
    kind, _, scope = kind.partition("/")
    name = f"{scope}/{rest}" if scope else rest
    if kind != "pod":
        service = _service(mesh, client, name, port)
        if service is not None:
            return service
    pod = _pod(mesh, client, name) if kind in ("", "pod") else None
    if pod is None:
        fail(f"{word} is neither an address, nor a Service, pod or name that {client.namespace}/{client.name} knows")
    how = f"the address of pod {pod.namespace}/{pod.name}"
    return Meant(pod.addresses[:1], port or HTTP_PORT, pod.addresses[0], how)


def _service(mesh: MeshState, client: Workload, name: str, port: int) -> Meant | None:
    namespace, slash, short = name.partition("/")
    host = f"{short}.{namespace}" if slash else name
    for kind in (A_RECORD, AAAA_RECORD):
        labels = tuple(host.encode(errors="replace").split(b"."))
        question = Question(labels, kind, INTERNET)
        answer = resolve(question, Client(client.namespace, client.network), mesh, Zone(), lambda: 0.0)
        if isinstance(answer, Records) and answer.addresses:
            found = mesh.service_at(client.network, answer.addresses[0], client.namespace)
            addresses = answer.addresses[:1] if found is not None else answer.addresses
            what = f"Service {found.key}" if found is not None else "pods, by a name of a headless Service"
            return Meant(addresses, port or _port(found), host, what)
    return None


def _pod(mesh: MeshState, client: Workload, name: str) -> Workload | None:
    namespace, slash, short = name.partition("/")
    found = source(mesh, *((namespace, short) if slash else (client.namespace, name)))
    return found if found is not None and found.addresses else None


def _port(service: Service | None) -> int:
    """The only port of a Service, else that of HTTP."""
    ports = [each.service_port for each in service.ports] if service is not None else []
    return ports[0] if len(ports) == 1 else HTTP_PORT


def split_port(word: str) -> tuple[str, int]:
    """DST[:PORT]; an IPv6 address with a port is in brackets. Raises CommandFailed."""
    if is_ip(word) or ":" not in word:
        return word, 0
    try:
        host, port = split_authority(word)
    except ValueError as problem:
        fail(f"{word!r} is not DESTINATION or DESTINATION:PORT: {problem}")
    return host, port
