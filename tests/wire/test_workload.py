"""Workloads and services over the wire: all of it comes back, and what is wrong is named."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.address import Ip
from mesh.model.workload import (
    GatewayAddress,
    NetworkAddress,
    PortMapping,
    Service,
    ServiceKey,
    TunnelProtocol,
    Visibility,
    Workload,
    WorkloadType,
    WorkloadUid,
)
from mesh.wire.errors import InvalidResource
from mesh.wire.generated import workload_pb2 as wire
from mesh.wire.workload import decode_address, encode_address
from tests.wire import values

POD = "Kubernetes//Pod/shop/web-1"


@given(values.workloads)
def test_workloads_come_back(workload: Workload) -> None:
    assert decode_address(workload.uid, encode_address(workload)) == workload


@given(values.services)
def test_services_come_back(service: Service) -> None:
    assert decode_address(service.key, encode_address(service)) == service


@given(values.workloads)
def test_equal_workloads_are_equal_bytes(workload: Workload) -> None:
    again = Workload(**{field: getattr(workload, field) for field in Workload.__dataclass_fields__})
    again.services.clear()
    again.services.update(reversed(list(workload.services.items())))
    assert encode_address(again) == encode_address(workload)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_resource_or_an_invalid_one(payload: bytes) -> None:
    with contextlib.suppress(InvalidResource):
        assert decode_address(POD, payload)


def test_a_workload_as_istiod_sends_it() -> None:
    message = text_format.Parse(
        r"""
        workload {
          uid: "Kubernetes//Pod/shop/web-1" name: "web-1" namespace: "shop"
          addresses: "\012\000\000\001" addresses: "\375\000\000\000\000\000\000\000\000\000\000\000\000\000\000\001"
          network: "net1" tunnel_protocol: HBONE service_account: "web" node: "node-1" workload_type: POD
          workload_name: "web" canonical_name: "web" canonical_revision: "v1"
          authorization_policies: "shop/strict"
          waypoint { hostname { namespace: "shop" hostname: "waypoint.shop.svc.cluster.local" } hbone_mtls_port: 15008 }
          services { key: "shop/web.shop.svc.cluster.local" value { ports { service_port: 80 target_port: 8080 } } }
        }
        """,
        wire.Address(),
    )
    assert decode_address(POD, message.SerializeToString()) == Workload(
        uid=WorkloadUid(POD),
        name="web-1",
        namespace="shop",
        addresses=(Ip("10.0.0.1"), Ip("fd00::1")),
        network="net1",
        service_account="web",
        trust_domain="cluster.local",
        tunnel_protocol=TunnelProtocol.HBONE,
        node="node-1",
        workload_name="web",
        workload_type=WorkloadType.POD,
        canonical_name="web",
        canonical_revision="v1",
        cluster_id="Kubernetes",
        waypoint=GatewayAddress(ServiceKey("shop/waypoint.shop.svc.cluster.local"), 15008),
        authorization_policies=("shop/strict",),  # type: ignore[arg-type]
        services={ServiceKey("shop/web.shop.svc.cluster.local"): (PortMapping(80, 8080),)},
    )


def test_empty_fields_mean_istios_defaults() -> None:
    workload = decode_address(POD, wire.Address(workload=wire.Workload(uid=POD)).SerializeToString())
    assert isinstance(workload, Workload)
    assert (workload.service_account, workload.trust_domain, workload.cluster_id, workload.capacity) == (
        "default",
        "cluster.local",
        "Kubernetes",
        1,
    )


@pytest.mark.parametrize("length", [None, 32])
def test_an_address_as_long_as_itself_is_a_host(length: int | None) -> None:
    message = wire.Service(namespace="shop", hostname="web")
    message.addresses.add(network="net1", address=b"\x0a\x00\x00\x01", length=length)
    service = decode_address("shop/web", wire.Address(service=message).SerializeToString())
    assert isinstance(service, Service)
    assert service.addresses == (NetworkAddress("net1", Ip("10.0.0.1"), None),)


def test_an_unknown_visibility_is_public() -> None:
    message = wire.Service(namespace="shop", hostname="web")
    message.visibility = 7  # type: ignore[assignment]
    service = decode_address("shop/web", wire.Address(service=message).SerializeToString())
    assert isinstance(service, Service)
    assert service.visibility is Visibility.PUBLIC


def _set(path: str, value: object) -> Callable[[Message], None]:
    def change(message: Message) -> None:
        target = message
        *parents, last = path.split(".")
        for parent in parents:
            target = getattr(target, parent)
        setattr(target, last, value)

    return change


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("addresses", lambda message: message.addresses.append(b"12345")),
        ("addresses", lambda message: message.addresses.append(b"")),
        ("tunnel_protocol", _set("tunnel_protocol", wire.LEGACY_ISTIO_MTLS)),
        ("tunnel_protocol", _set("tunnel_protocol", 9)),
        ("workload_type", _set("workload_type", 9)),
        ("status", _set("status", 9)),
        ("network_mode", _set("network_mode", 9)),
        ("application_tunnel.protocol", _set("application_tunnel.protocol", 9)),
        ("application_tunnel.port", _set("application_tunnel.port", 65536)),
        ("waypoint", _set("waypoint.hbone_mtls_port", 15008)),
        ("waypoint.hbone_mtls_port", _set("waypoint.hbone_mtls_port", 65536)),
        ("waypoint.address", _set("waypoint.address.address", b"123")),
        ("waypoint.hostname", _set("waypoint.hostname.namespace", "shop")),
        ("waypoint_binding", _set("waypoint_binding", 9)),
        ("waypoint_failure", _set("waypoint_failure", 9)),
        ("network_gateway", _set("network_gateway.hbone_mtls_port", 15008)),
        ("services", lambda message: message.services["no-slash"]),
        ("services[a/b]", lambda message: message.services["a/b"].ports.add(service_port=70000)),
        ("name", _set("uid", "another")),
        ("uid", _set("uid", "")),
    ],
)
def test_what_is_wrong_is_named(field: str, change: Callable[[wire.Workload], None]) -> None:
    message = wire.Workload(uid=POD)
    change(message)
    with pytest.raises(InvalidResource) as raised:
        decode_address(POD, wire.Address(workload=message).SerializeToString())
    assert (raised.value.name, raised.value.field) == (POD, field)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("hostname", wire.Service(hostname="web")),
        ("hostname", wire.Service(namespace="shop")),
        ("addresses", wire.Service(namespace="s", hostname="h", addresses=[wire.NetworkAddress(address=b"1")])),
        ("addresses", wire.Service(namespace="s", hostname="h", addresses=[{"address": b"1234", "length": 33}])),  # type: ignore[list-item]
        ("ports", wire.Service(namespace="s", hostname="h", ports=[wire.Port(target_port=65536)])),
        ("weighted_waypoints", wire.Service(namespace="s", hostname="h", weighted_waypoints=[wire.WeightedWaypoint()])),
    ],
)
def test_what_is_wrong_with_a_service_is_named(field: str, message: wire.Service) -> None:
    with pytest.raises(InvalidResource) as raised:
        decode_address("s/h", wire.Address(service=message).SerializeToString())
    assert raised.value.field == field


@pytest.mark.parametrize("field", ["ip_families", "load_balancing.mode", "load_balancing.health_policy"])
def test_unknown_choices_of_a_service_are_named(field: str) -> None:
    message = wire.Service(namespace="s", hostname="h")
    _set(field, 9)(message)
    with pytest.raises(InvalidResource) as raised:
        decode_address("s/h", wire.Address(service=message).SerializeToString())
    assert raised.value.field == field


def test_an_unspecified_scope_is_refused() -> None:
    message = wire.Service(namespace="s", hostname="h")
    message.load_balancing.routing_preference.append(wire.LoadBalancing.UNSPECIFIED_SCOPE)
    with pytest.raises(InvalidResource, match="unknown Scope 0"):
        decode_address("s/h", wire.Address(service=message).SerializeToString())
