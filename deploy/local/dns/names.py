"""The names of a cluster and what they mean, from its objects: pure (Kubernetes' DNS specification 1.1.0)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address

from controller.store.interface import Object
from deploy.local.controllers import service_addresses
from deploy.local.controllers.endpoint_slices import SERVICE_LABEL
from deploy.local.objects import labels, namespace
from mesh.model.address import Ip, canonical


@dataclass(frozen=True, slots=True, order=True)
class Srv:
    """A target of a service record."""

    target: str
    port: int


@dataclass(slots=True)
class Name:
    """What is known of one name; a name that only has others below it has nothing, and still exists."""

    addresses: set[Ip] = field(default_factory=set)
    services: set[Srv] = field(default_factory=set)
    alias: str = ""
    pointer: str = ""


Names = dict[str, Name]  # by name: lower case, without the last dot


def names(domain: str, namespaces: Iterable[Object], services: Iterable[Object], slices: Iterable[Object]) -> Names:
    """All names below `domain`, and the reverse names of Services' and named endpoints' addresses."""
    by_service: dict[tuple[str, str], list[Object]] = {}
    for each in slices:
        by_service.setdefault((namespace(each), labels(each).get(SERVICE_LABEL, "")), []).append(each)
    found: Names = {domain: Name(), f"svc.{domain}": Name()}
    for each in namespaces:
        found.setdefault(f"{each['metadata']['name']}.svc.{domain}", Name())
    for service in services:
        own = by_service.get((namespace(service), service["metadata"]["name"]), [])
        _add_service(found, f"{service['metadata']['name']}.{namespace(service)}.svc.{domain}", service, own)
    for name in list(found):
        _add_parents(found, name, domain)
    return found


def reverse_name(ip: Ip) -> str:
    return ip_address(ip).reverse_pointer


def _add_service(found: Names, host: str, service: Object, slices: list[Object]) -> None:
    spec = service["spec"]
    name = found.setdefault(host, Name())
    if spec.get("type") == "ExternalName":
        name.alias = spec.get("externalName", "").rstrip(".").lower()
        return
    addresses = service_addresses.addresses(service) if service_addresses.is_allocated(service) else []
    if not addresses:
        _add_endpoints(found, host, slices)
        return
    for address in map(canonical, addresses):
        name.addresses.add(address)
        found.setdefault(reverse_name(address), Name()).pointer = host
    for port in spec.get("ports") or ():
        _add_srv(found, host, port.get("name", ""), port.get("protocol", "TCP"), Srv(host, int(port["port"])))


def _add_endpoints(found: Names, host: str, slices: list[Object]) -> None:
    """A headless Service is the addresses of its endpoints; those with a hostname have a name of their own."""
    for each in slices:
        for endpoint in each.get("endpoints") or ():
            if not (endpoint.get("conditions") or {}).get("ready", True):
                continue
            address = canonical(endpoint["addresses"][0])
            found[host].addresses.add(address)
            own = f"{endpoint.get('hostname') or address.replace('.', '-').replace(':', '-')}.{host}".lower()
            found.setdefault(own, Name()).addresses.add(address)
            if endpoint.get("hostname"):
                found.setdefault(reverse_name(address), Name()).pointer = own
            for port in each.get("ports") or ():
                if "port" in port:
                    _add_srv(found, host, port.get("name", ""), port.get("protocol", "TCP"), Srv(own, port["port"]))


def _add_srv(found: Names, host: str, port: str, protocol: str, record: Srv) -> None:
    if port:
        found.setdefault(f"_{port}._{protocol.lower()}.{host}", Name()).services.add(record)


def _add_parents(found: Names, name: str, domain: str) -> None:
    """A name with others below it exists: asking for it is not an error (RFC 8020)."""
    parent = name.partition(".")[2]
    while parent.endswith(domain) and parent not in found:
        found[parent] = Name()
        parent = parent.partition(".")[2]
