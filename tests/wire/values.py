"""Arbitrary values of the model, as far as the wire can carry them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from mesh.model.address import Cidr, Ip, canonical, is_v6
from mesh.model.policy import Authorization, Clause, Match, MatchKind, Rule, ServiceAccountMatch, StringMatch
from mesh.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    LoadBalancing,
    Locality,
    NetworkAddress,
    PolicyKey,
    PortMapping,
    Scope,
    Service,
    ServiceKey,
    WeightedGateway,
    Workload,
    WorkloadUid,
)

names = st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True)
text = st.text(st.characters(codec="utf-8"), max_size=20)
ports = st.integers(0, 65535)
ips = st.one_of(st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)).map(
    lambda ip: canonical(str(ip))
)
service_keys = st.builds(lambda namespace, host: ServiceKey(f"{namespace}/{host}"), names, names)


def few(each: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(each, max_size=2).map(tuple)


def bits(ip: Ip) -> int:
    return 128 if is_v6(ip) else 32


@st.composite
def cidrs(draw: st.DrawFn) -> Cidr:
    ip = draw(ips)
    return Cidr(ip, draw(st.integers(0, bits(ip))))


@st.composite
def network_addresses(draw: st.DrawFn) -> NetworkAddress:
    ip = draw(ips)  # a prefix as long as the address is a host: None
    return NetworkAddress(draw(text), ip, draw(st.none() | st.integers(0, bits(ip) - 1)))


gateways = st.builds(GatewayAddress, service_keys | network_addresses(), ports)
mappings = st.lists(st.builds(PortMapping, ports, ports), max_size=3).map(tuple)
uint32 = st.integers(0, 2**32 - 1)

workloads = st.builds(
    Workload,
    uid=text.filter(bool).map(WorkloadUid),
    name=text,
    namespace=text,
    addresses=st.lists(ips, max_size=3).map(tuple),
    network=text,
    service_account=text.filter(bool),
    trust_domain=text.filter(bool),
    tunnel_protocol=...,
    workload_type=...,
    status=...,
    network_mode=...,
    native_tunnel=...,
    application_tunnel=st.none() | st.builds(ApplicationTunnel, protocol=..., port=ports),
    node=text,
    workload_name=text,
    canonical_name=text,
    canonical_revision=text,
    cluster_id=text.filter(bool),
    hostname=text,
    waypoint=st.none() | gateways,
    waypoint_binding=...,
    waypoint_failure=...,
    network_gateway=st.none() | gateways,
    locality=st.builds(Locality, text, text, text),
    capacity=uint32,
    authorization_policies=st.lists(text.map(PolicyKey), max_size=3).map(tuple),
    services=st.dictionaries(service_keys, mappings, max_size=3),
)
services = st.builds(
    Service,
    name=text,
    namespace=names,
    hostname=names,
    addresses=st.lists(network_addresses(), max_size=3).map(tuple),
    ports=mappings,
    subject_alt_names=st.lists(text, max_size=3).map(tuple),
    waypoint=st.none() | gateways,
    weighted_waypoints=st.lists(st.builds(WeightedGateway, gateways, uint32), max_size=2).map(tuple),
    waypoint_failure=...,
    load_balancing=st.none()
    | st.builds(LoadBalancing, routing_preference=few(st.sampled_from(Scope)), mode=..., health_policy=...),
    ip_families=...,
    canonical=...,
    visibility=...,
)
strings = st.builds(StringMatch, st.sampled_from(MatchKind), text).map(
    lambda match: StringMatch(match.kind) if match.kind is MatchKind.PRESENCE else match
)
accounts = st.builds(ServiceAccountMatch, names, names)


matches = st.builds(
    Match,
    few(strings),
    few(strings),
    few(strings),
    few(strings),
    few(cidrs()),
    few(cidrs()),
    few(cidrs()),
    few(cidrs()),
    few(ports),
    few(ports),
    few(accounts),
    few(accounts),
)
policies = st.builds(
    Authorization,
    name=names,
    namespace=names,
    scope=...,
    action=...,
    dry_run=...,
    rules=few(st.builds(Rule, few(st.builds(Clause, few(matches))))),
)
