"""Small meshes for xDS tests."""

from __future__ import annotations

from mesh.model.address import Ip
from mesh.model.policy import Action, Authorization, PolicyScope, Rule
from mesh.model.workload import NetworkAddress, PortMapping, Service, ServiceKey, Workload, WorkloadUid
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE
from mesh.xds.resources import Collection, address_resource, policy_resource

WEB = ServiceKey("shop/web.shop.svc.cluster.local")


def workload(name: str, ip: str = "10.0.0.1", node: str = "", *services: ServiceKey, account: str = "web") -> Workload:
    return Workload(
        uid=WorkloadUid(f"Kubernetes//Pod/shop/{name}"),
        name=name,
        namespace="shop",
        addresses=(Ip(ip),),
        service_account=account,
        node=node,
        services={key: (PortMapping(80, 8080),) for key in services},
    )


def service(vip: str = "10.96.0.1") -> Service:
    addresses = (NetworkAddress("", Ip(vip)),)
    return Service("web", "shop", "web.shop.svc.cluster.local", addresses, (PortMapping(80, 8080),))


def deny(name: str = "strict") -> Authorization:
    return Authorization(name, "shop", PolicyScope.NAMESPACE, Action.DENY, (Rule(),))


def collections() -> dict[str, Collection]:
    return {ADDRESS_TYPE: Collection(), AUTHORIZATION_TYPE: Collection()}


def put(collection: Collection, *values: Workload | Service | Authorization) -> set[str]:
    made = [policy_resource(v) if isinstance(v, Authorization) else address_resource(v) for v in values]
    return collection.apply(made, ())


def response(type_url: str, nonce: str, *resources: Resource, removed: tuple[str, ...] = ()) -> DeltaDiscoveryResponse:
    return DeltaDiscoveryResponse(type_url=type_url, nonce=nonce, resources=resources, removed_resources=removed)


def names(message: DeltaDiscoveryResponse | None) -> set[str]:
    assert message is not None
    return {resource.name for resource in message.resources}


def ack(message: DeltaDiscoveryResponse | None) -> DeltaDiscoveryRequest:
    assert message is not None
    return DeltaDiscoveryRequest(type_url=message.type_url, response_nonce=message.nonce)
