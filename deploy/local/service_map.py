"""Services as a node sees them: which address and port leads to which endpoints. Pure; for packet rules and for DNS."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.store.interface import Object
from deploy.local.controllers import service_addresses
from deploy.local.controllers.endpoint_slices import SERVICE_LABEL
from deploy.local.objects import labels, namespace
from mesh.model.address import Ip, SocketAddress, canonical, is_v6


@dataclass(frozen=True, slots=True, order=True)
class VirtualPort:
    """One port of a Service at one of its addresses. `protocol` is "tcp" or "udp"."""

    protocol: str
    address: Ip
    port: int


def virtual_ports(services: Iterable[Object], slices: Iterable[Object]) -> dict[VirtualPort, tuple[SocketAddress, ...]]:
    """All Services' ports, with the endpoints that take new connections now: none of them for some, perhaps."""
    by_service = _by_service(slices)
    result: dict[VirtualPort, tuple[SocketAddress, ...]] = {}
    for service in services:
        found = by_service.get((namespace(service), service["metadata"]["name"]), [])
        if not service_addresses.is_allocated(service):
            continue
        for address in service_addresses.addresses(service):
            for port in service["spec"].get("ports") or ():
                protocol = port.get("protocol", "TCP")
                if protocol in ("TCP", "UDP"):
                    virtual = VirtualPort(protocol.lower(), canonical(address), int(port["port"]))
                    result[virtual] = _endpoints(found, port.get("name", ""), protocol, is_v6(canonical(address)))
    return result


def _by_service(slices: Iterable[Object]) -> dict[tuple[str, str], list[Object]]:
    result: dict[tuple[str, str], list[Object]] = {}
    for each in slices:
        name = labels(each).get(SERVICE_LABEL)
        if name:
            result.setdefault((namespace(each), name), []).append(each)
    return result


def _endpoints(slices: list[Object], name: str, protocol: str, v6: bool) -> tuple[SocketAddress, ...]:
    found = set()
    for each in slices:
        if each.get("addressType") != ("IPv6" if v6 else "IPv4"):
            continue
        ports = [port for port in each.get("ports") or () if _is(port, name, protocol)]
        for endpoint in each.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready", True):
                found |= {SocketAddress(canonical(endpoint["addresses"][0]), port["port"]) for port in ports}
    return tuple(sorted(found, key=str))


def _is(port: Object, name: str, protocol: str) -> bool:
    return port.get("name", "") == name and port.get("protocol", "TCP") == protocol and "port" in port
