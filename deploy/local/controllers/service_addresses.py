"""Services get their cluster addresses: by family policy, honouring those that a manifest asks for."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from controller.store.interface import Object
from deploy.local.addresses import DNS_V4, DNS_V6, SERVICES_V4, SERVICES_V6
from deploy.local.controllers.actions import Action, Merge, Picture, SetStatus
from deploy.local.objects import condition_update, is_terminating, key, namespace, uid

HEADLESS = "None"
BLOCKS: dict[str, IPv4Network | IPv6Network] = {"IPv4": SERVICES_V4, "IPv6": SERVICES_V6}
CONDITION = "ClusterIPAllocated"


def reconcile(picture: Picture, now: str) -> Iterator[Action]:
    services = sorted(
        (each for each in picture.of("Service") if not is_terminating(each)),
        key=lambda each: (
            str(each["metadata"].get("creationTimestamp", "")),
            namespace(each),
            each["metadata"]["name"],
        ),
    )
    owners: dict[str, str] = {DNS_V4: "the resolver of the mesh", DNS_V6: "the resolver of the mesh"}
    clashes: dict[str, str] = {}
    for service in services:  # older ones first: the newer one of two that claim an address has to give way
        for address in _claimed(service):
            problem = _problem(service, address, owners)
            if problem:
                clashes[uid(service)] = problem
            else:
                owners[address] = f"Service {namespace(service)}/{service['metadata']['name']}"
    for service in services:
        yield from _one(service, owners, clashes.get(uid(service), ""), now)


def addresses(service: Object) -> list[str]:
    """The cluster addresses of a service, in canonical text; none when it is headless or has none yet."""
    spec = service["spec"]
    found = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [str(ip_address(each)) for each in found if each != HEADLESS]


def is_allocated(service: Object) -> bool:
    """Whether its addresses are its own: one that lost a clash has none that count."""
    conditions = service.get("status", {}).get("conditions", ())
    return not any(each.get("type") == CONDITION and each.get("status") == "False" for each in conditions)


def families(service: Object) -> list[str]:
    """The address families that a service is to have (Kubernetes: pkg/registry/core/service/alloc.go)."""
    spec = service["spec"]
    given = list(spec.get("ipFamilies") or ())
    given = given or ["IPv6" if ":" in each else "IPv4" for each in addresses(service)]
    given = given or ["IPv4"]
    if spec.get("ipFamilyPolicy") in ("PreferDualStack", "RequireDualStack") and len(given) == 1:
        given.append("IPv6" if given[0] == "IPv4" else "IPv4")
    return given


def _one(service: Object, owners: dict[str, str], clash: str, now: str) -> Iterator[Action]:
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return
    if clash:
        yield from _tell(service, False, "ClusterIPClash", clash, now)
        return
    wanted = families(service)
    fields: dict[str, Any] = {
        "ipFamilies": wanted,
        "ipFamilyPolicy": spec.get("ipFamilyPolicy") or ("SingleStack" if len(wanted) == 1 else "RequireDualStack"),
        "clusterIPs": [HEADLESS] if _is_headless(spec) else _allocate(service, wanted, owners),
    }
    fields["clusterIP"] = fields["clusterIPs"][0]
    if any(spec.get(name) != value for name, value in fields.items()):
        yield Merge(key(service), uid(service), {"spec": fields})
    if not is_allocated(service):
        yield from _tell(service, True, "Allocated", "", now)


def _tell(service: Object, holds: bool, reason: str, message: str, now: str) -> Iterator[Action]:
    conditions = condition_update(service, CONDITION, holds, reason, message, now)
    if conditions is not None:
        yield SetStatus(key(service), uid(service), {"conditions": conditions})


def _allocate(service: Object, wanted: list[str], owners: dict[str, str]) -> list[str]:
    have = {("IPv6" if ":" in each else "IPv4"): each for each in addresses(service)}
    result = []
    for family in wanted:
        address = have.get(family) or _free(BLOCKS[family], owners)
        owners[address] = f"Service {namespace(service)}/{service['metadata']['name']}"
        result.append(address)
    return result


def _free(block: IPv4Network | IPv6Network, owners: dict[str, str]) -> str:
    """The lowest free one after the first 16, which are left for addresses that people choose (KEP-3070)."""
    for number in range(17, block.num_addresses - 1):
        if str(block[number]) not in owners:
            return str(block[number])
    raise ValueError(f"no free service address in {block}")


def _claimed(service: Object) -> list[str]:
    return [] if _is_headless(service["spec"]) else addresses(service)


def _is_headless(spec: Any) -> bool:
    return HEADLESS in (spec.get("clusterIP"), *(spec.get("clusterIPs") or ()))


def _problem(service: Object, address: str, owners: dict[str, str]) -> str:
    if address in owners:
        return f"spec.clusterIP {address} is taken by {owners[address]}"
    block = BLOCKS["IPv6" if ":" in address else "IPv4"]
    if ip_address(address) not in block:
        return f"spec.clusterIP {address} is not in the block of service addresses, {block}"
    return ""
