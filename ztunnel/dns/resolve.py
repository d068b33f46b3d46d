"""Which names the mesh answers itself, and with what: services, endpoints of headless ones, pods of stateful sets.

Everything else is for the resolver that the app has asked. Names are looked for as asked, then in Kubernetes' short
forms, then without the search domains that a stub resolver has appended, each also under wildcards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mesh.model.address import Ip, is_v6
from mesh.model.balance import Chance
from mesh.model.state import MeshState
from mesh.model.workload import IpFamilies, Service, ServiceKey
from ztunnel.dns.message import A_RECORD, AAAA_RECORD, INTERNET, Question, Records

_ORDINAL = re.compile(r"-\d+")


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks."""

    namespace: str
    network: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """What is the same for all who ask."""

    cluster_domain: str = "cluster.local"
    preferred_namespace: str = ""  # whose services win when several namespaces have one hostname


@dataclass(frozen=True, slots=True)
class Forward:
    """The resolver that the app has asked shall answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A full name to look for, and what is left of the asked one when a search domain has been taken off."""

    name: str
    stripped: str = ""


def resolve(question: Question, client: Client, mesh: MeshState, zone: Zone, chance: Chance) -> Records | Forward:
    """What to answer. Records without addresses are a NOERROR that says: the name exists, but not in this family."""
    if question.scope != INTERNET or question.kind not in (A_RECORD, AAAA_RECORD):
        return Forward("the mesh knows addresses only")
    name = question.name
    if not name:
        return Forward("not a hostname")
    v6 = question.kind == AAAA_RECORD
    for candidate in _candidates(name, client, zone):
        pod = _pod_of_stateful_set(candidate.name, client, mesh, zone, v6)
        if pod is not None:
            return Records(pod, candidate.stripped)
        for pattern in _with_wildcards(candidate.name):
            service = mesh.service_named(pattern, client.namespace, zone.preferred_namespace)
            if service is not None:
                # A name that only a wildcard covers has no name of its own to point to.
                alias = candidate.stripped if pattern == candidate.name else ""
                return _of_service(service, alias, client, mesh, zone, v6, chance)
    return Forward(f"{name} is not in the mesh")


# --- names


def _candidates(name: str, client: Client, zone: Zone) -> Iterator[_Candidate]:
    yield _Candidate(name)
    for full in _kubernetes_forms(name, client, zone):
        yield _Candidate(full)
    for domain in _search_domains(client, zone):
        stripped = name.removesuffix(f".{domain}")
        if stripped == name:
            continue
        yield _Candidate(stripped, stripped)
        for full in _kubernetes_forms(stripped, client, zone):
            yield _Candidate(full, stripped)


def _search_domains(client: Client, zone: Zone) -> tuple[str, ...]:
    """As the kubelet writes them into a pod's resolv.conf."""
    domain = zone.cluster_domain
    return f"{client.namespace}.svc.{domain}", f"svc.{domain}", domain


def _kubernetes_forms(name: str, client: Client, zone: Zone) -> tuple[str, ...]:
    """The full name that a short one may stand for: service, service.namespace, [pod.]service.namespace.svc."""
    labels = name.split(".")
    if len(labels) == 1:
        return (f"{name}.{client.namespace}.svc.{zone.cluster_domain}",)
    if len(labels) == 2:
        return (f"{name}.svc.{zone.cluster_domain}",)
    if len(labels) in (3, 4) and labels[-1] == "svc":
        return (f"{name}.{zone.cluster_domain}",)
    return ()


def _with_wildcards(name: str) -> Iterator[str]:
    """The name, then wildcards that cover it, the most specific first."""
    yield name
    rest = name
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"


# --- addresses


def _of_service(
    service: Service, alias: str, client: Client, mesh: MeshState, zone: Zone, v6: bool, chance: Chance
) -> Records | Forward:
    virtual = [address for address in service.addresses if not address.is_block]
    if virtual:
        addresses = [address.ip for address in virtual if address.network == client.network]
        return Records(_shuffled(_of_family(addresses, service, v6), chance), alias)
    if service.addresses or not service.hostname.lower().endswith(f".svc.{zone.cluster_domain}"):
        return Forward(f"service {service.key} has no address of its own")
    endpoints = [each for each in mesh.endpoints(service.key).members if each.network == client.network]
    if not endpoints:
        return Forward(f"headless service {service.key} has no healthy endpoint")
    addresses = [ip for endpoint in endpoints for ip in endpoint.addresses]
    return Records(_shuffled(_of_family(addresses, service, v6), chance), alias)


def _pod_of_stateful_set(name: str, client: Client, mesh: MeshState, zone: Zone, v6: bool) -> tuple[Ip, ...] | None:
    """pod.service.namespace.svc.domain, where a healthy endpoint of that headless service is the pod of a stateful set
    (its name is the set's and an ordinal: only then is the pod's hostname known to be its name)."""
    pod, _, rest = name.partition(".")
    labels = rest.removesuffix(f".svc.{zone.cluster_domain}").split(".")
    if len(labels) != 2 or not rest.endswith(f".svc.{zone.cluster_domain}"):
        return None
    service = mesh.service(ServiceKey(f"{labels[1]}/{rest}"))
    if service is None or service.addresses or mesh.service_named(rest, client.namespace) is None:
        return None
    for endpoint in mesh.endpoints(service.key).members:
        if endpoint.name == pod and _is_ordinal_of(pod, endpoint.workload_name) and endpoint.network == client.network:
            return tuple(_of_family(list(endpoint.addresses), service, v6))
    return None


def _is_ordinal_of(pod: str, stateful_set: str) -> bool:
    return bool(stateful_set) and pod.startswith(stateful_set) and bool(_ORDINAL.fullmatch(pod[len(stateful_set) :]))


def _of_family(addresses: list[Ip], service: Service, v6: bool) -> list[Ip]:
    unsupported = IpFamilies.IPV4_ONLY if v6 else IpFamilies.IPV6_ONLY
    return [] if service.ip_families is unsupported else [ip for ip in addresses if is_v6(ip) == v6]


def _shuffled(addresses: list[Ip], chance: Chance) -> tuple[Ip, ...]:
    """Apps take the first: let it not always be the same (Fisher-Yates)."""
    for last in range(len(addresses) - 1, 0, -1):
        other = int(chance() * (last + 1))
        addresses[last], addresses[other] = addresses[other], addresses[last]
    return tuple(addresses)
