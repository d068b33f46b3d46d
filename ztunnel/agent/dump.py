"""The mesh as JSON in the shape of Istio's config dump and LOCAL_XDS file (src/admin.rs, src/xds.rs). Pure.

camelCase; what has its default is left out, except for what tables of people show.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from mesh.identity import certificates
from mesh.identity.credential import Credential
from mesh.model.address import Cidr, is_v6
from mesh.model.policy import Authorization, Clause, Match, MatchKind, ServiceAccountMatch, StringMatch
from mesh.model.state import MeshState
from mesh.model.workload import (
    GatewayAddress,
    IpFamilies,
    LoadBalancing,
    Locality,
    NetworkAddress,
    NetworkMode,
    PortMapping,
    Scope,
    Service,
    TunnelProtocol,
    Workload,
    WorkloadStatus,
)
from ztunnel.feed import Connection

Json = dict[str, Any]


def mesh(state: MeshState) -> Json:
    whole = state.snapshot()
    return {
        "workloads": [workload(one) for one in whole.workloads],
        "services": [service(one, state.endpoints(one.key, healthy=False).members) for one in whole.services],
        "policies": [policy(one) for one in whole.policies],
        "stagedServices": {key: _endpoints(found.members, key) for key, found in state.staged().items()},
    }


def workload(one: Workload) -> Json:
    return {
        "uid": one.uid,
        "workloadIps": list(one.addresses),
        "name": one.name,
        "namespace": one.namespace,
        "serviceAccount": one.service_account,
        "trustDomain": one.trust_domain,
        "protocol": "HBONE" if one.tunnel_protocol is TunnelProtocol.HBONE else "TCP",
        "node": one.node,
        "workloadName": one.workload_name,
        "workloadType": one.workload_type.name.lower(),
        "canonicalName": one.canonical_name,
        "canonicalRevision": one.canonical_revision,
        "clusterId": one.cluster_id,
        "status": _status(one.status),
        "services": {key: _ports(ports) for key, ports in one.services.items()},
        **_present(
            network=one.network,
            hostname=one.hostname,
            nativeTunnel=one.native_tunnel,
            networkMode="HostNetwork" if one.network_mode is NetworkMode.HOST_NETWORK else "",
            waypoint=one.waypoint and _gateway(one.waypoint),
            waypointBinding=one.waypoint_binding.name.lower() if one.waypoint_binding else "",
            waypointFailure=one.waypoint_failure.name.lower() if one.waypoint_failure else "",
            networkGateway=one.network_gateway and _gateway(one.network_gateway),
            applicationTunnel=one.application_tunnel
            and {"protocol": one.application_tunnel.protocol.name, "port": one.application_tunnel.port},
            locality=_locality(one.locality),
            capacity=one.capacity if one.capacity != 1 else None,
            authorizationPolicies=list(one.authorization_policies),
        ),
    }


def service(one: Service, endpoints: Iterable[Workload]) -> Json:
    return {
        "name": one.name,
        "namespace": one.namespace,
        "hostname": one.hostname,
        "vips": [_address(each) for each in one.addresses if not _is_block(each)],
        "ports": _ports(one.ports),
        "endpoints": _endpoints(endpoints, one.key),
        "ipFamilies": _IP_FAMILIES[one.ip_families],
        "visibility": one.visibility.name.capitalize(),
        **_present(
            cidrVips=[{"network": each.network, "cidr": f"{each.ip}/{each.length}"} for each in _blocks(one)],
            subjectAltNames=list(one.subject_alt_names),
            waypoint=one.waypoint and _gateway(one.waypoint),
            weightedWaypoints=[
                {"destination": _gateway(each.destination), "weight": each.weight} for each in one.weighted_waypoints
            ],
            waypointFailure=one.waypoint_failure.name.lower() if one.waypoint_failure else "",
            loadBalancer=one.load_balancing and _load_balancing(one.load_balancing),
            canonical=one.canonical,
        ),
    }


def policy(one: Authorization) -> Json:
    return {
        "name": one.name,
        "namespace": one.namespace,
        "scope": "".join(word.capitalize() for word in one.scope.name.split("_")),
        "action": one.action.name.capitalize(),
        "dryRun": one.dry_run,
        "rules": [[_clause(clause) for clause in rule.clauses] for rule in one.rules],
    }


def certificate(identity: object, credential: Credential | None, reason: str) -> Json:
    """No key is ever shown."""
    if credential is None:
        state = f"Unavailable: {reason}" if reason else "Initializing"
        return {"identity": str(identity), "state": state, "certChain": [], "rootCerts": []}
    return {
        "identity": str(identity),
        "state": "Available",
        "certChain": _chain(credential.chain),
        "rootCerts": _chain(credential.roots),
        **_present(renewalError=reason),
    }


def connection(one: Connection) -> Json:
    return {
        "direction": one.direction,
        "protocol": one.protocol,
        "workload": one.workload,
        "source": str(one.source),
        "destination": str(one.destination),
        "sent": one.sent,
        "received": one.received,
        "started": time_text(one.started),
        **_present(
            actual=one.actual and str(one.actual),
            sourceIdentity=one.source_identity and str(one.source_identity),
            destinationIdentity=one.destination_identity and str(one.destination_identity),
            destinationService=one.destination_service,
            peerWorkload=one.peer_workload,
        ),
    }


def time_text(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


_IP_FAMILIES = {
    IpFamilies.AUTOMATIC: None,
    IpFamilies.IPV4_ONLY: "IPv4",
    IpFamilies.IPV6_ONLY: "IPv6",
    IpFamilies.DUAL: "Dual",
}


def _present(**fields: object) -> Json:
    return {name: value for name, value in fields.items() if value not in (None, "", False, [], {})}


def _status(status: WorkloadStatus) -> str:
    return status.name.capitalize()


def _ports(ports: Iterable[PortMapping]) -> dict[str, int]:
    return {str(port.service_port): port.target_port for port in ports}


def _endpoints(members: Iterable[Workload], key: str) -> Json:
    services: list[tuple[Workload, Mapping[Any, tuple[PortMapping, ...]]]] = [(one, one.services) for one in members]
    return {
        one.uid: {"workloadUid": one.uid, "port": _ports(ports.get(key, ())), "status": _status(one.status)}
        for one, ports in services
    }


def _is_block(address: NetworkAddress) -> bool:
    return address.length is not None and address.length < (128 if is_v6(address.ip) else 32)


def _blocks(one: Service) -> list[NetworkAddress]:
    return [each for each in one.addresses if _is_block(each)]


def _address(address: NetworkAddress) -> str:
    return f"{address.network}/{address.ip}"


def _gateway(gateway: GatewayAddress) -> Json:
    destination = gateway.destination
    text = _address(destination) if isinstance(destination, NetworkAddress) else destination
    return {"destination": text, "hboneMtlsPort": gateway.hbone_port}


def _locality(locality: Locality) -> Json:
    return _present(region=locality.region, zone=locality.zone, subzone=locality.subzone)


def _load_balancing(one: LoadBalancing) -> Json:
    return {
        "routingPreferences": [Scope(scope).name.capitalize() for scope in one.routing_preference],
        "mode": "Standard" if one.mode == 0 else one.mode.name.capitalize(),
        "healthPolicy": "".join(word.capitalize() for word in one.health_policy.name.split("_")),
    }


def _clause(clause: Clause) -> list[Json]:
    return [_match(match) for match in clause.matches]


def _match(match: Match) -> Json:
    fields = {name: [_matched(value) for value in getattr(match, name)] for name in Match.__slots__}
    return {_camel(name): values for name, values in fields.items() if values}


def _matched(value: object) -> object:
    match value:
        case StringMatch(kind=MatchKind.PRESENCE):
            return "Presence"
        case StringMatch(kind=kind, value=text):
            return {kind.name.capitalize(): text}
        case Cidr(ip=ip, length=length):
            return f"{ip}/{length}"
        case ServiceAccountMatch(namespace=namespace, service_account=account):
            return {"namespace": namespace, "serviceAccount": account}
    return value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _chain(pem: bytes) -> list[Json]:
    end = "-----END CERTIFICATE-----\n"
    parts = [part + end for part in pem.decode().split(end) if part.strip()]
    return [_facts(part, certificates.parse_leaf(part)) for part in parts]


def _facts(pem: str, facts: certificates.Certificate) -> Json:
    return {
        "pem": base64.b64encode(pem.encode()).decode(),
        "serialNumber": facts.serial,
        "validFrom": time_text(facts.not_before),
        "expirationTime": time_text(facts.not_after),
    }
