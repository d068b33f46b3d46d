"""What becomes of a connection that reaches a pod: delivered to its app, or answered with a status and a reason.

The address that is dialled is always the connection's own destination, never one that the peer names. Statuses are
Istio's: 400 for what is no valid request to this pod, 401 for a denial by policy, 503 for what the pod cannot serve.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from mesh.hbone.connect_headers import FORWARDED, FORWARDED_NETWORK, SOURCE_IDENTITY, parse_forwarded
from mesh.model.address import SocketAddress, canonical, is_ip, split_authority
from mesh.model.balance import target_port
from mesh.model.identity import SpiffeId
from mesh.model.ports import PROXY_PORTS
from mesh.model.state import MeshState
from mesh.model.workload import (
    GatewayAddress,
    Service,
    TunnelApplicationProtocol,
    Workload,
    WorkloadUid,
)
from mesh.policy.evaluate import Denial, Permit, evaluate
from mesh.policy.match import ConnectionFacts
from ztunnel.plan.bound import is_waypoint, round_waypoint
from ztunnel.plan.plan import Answer, Deliver, Flag, InboundPlan
from ztunnel.plan.proxy_protocol import build_header


class Connect(Struct, frozen=True):
    """A request on a tunnel whose peer has proved to be `peer`."""

    method: str
    authority: str
    headers: Mapping[str, str]
    local: SocketAddress  # the tunnel's own destination: an address of this pod
    remote: SocketAddress
    peer: SpiffeId


class _Target(Struct, frozen=True):
    """The port of this pod that an authority means, and the address that the peer meant."""

    port: int
    meant: SocketAddress


def plan_inbound(mesh: MeshState, own: WorkloadUid, request: Connect) -> InboundPlan:
    """Decide on one CONNECT to the pod `own`."""
    if request.method != "CONNECT":
        return Answer(400, f"method {request.method!r} is not CONNECT")
    try:
        host, port = split_authority(request.authority)
    except ValueError as error:
        return Answer(400, f"bad authority: {error}")
    workload = mesh.workload(own)
    if workload is None:
        return Answer(503, f"workload {own} is not known (any more)")
    find = _by_ip if host == request.local.ip or is_ip(host) else _by_hostname
    target = find(mesh, workload, request.local, host, port)
    return target if isinstance(target, Answer) else _deliver(mesh, workload, request, target)


def plan_plaintext(mesh: MeshState, own: WorkloadUid, local: SocketAddress, remote: SocketAddress) -> InboundPlan:
    """Decide on one captured connection from `remote` to `local` that came in plain text."""
    workload = mesh.workload(own)
    if workload is None:
        return Answer(503, f"workload {own} is not known yet")
    if local.port in PROXY_PORTS:
        return Answer(503, f"port {local.port} is the proxy's own", Flag.DENY)
    found = mesh.workload_at(workload.network, remote.ip)
    facts, source = ConnectionFacts(remote.ip, local), found.uid if found is not None else None
    if reason := round_waypoint(mesh, workload, local.port, None):
        return Answer(401, reason, Flag.DENY, facts, source)
    verdict = evaluate(mesh.policies_for(workload), facts)
    if isinstance(verdict, Denial):
        return Answer(401, verdict.reason, Flag.DENY, facts, source)
    return Deliver(local, verdict, remote, source_workload=source)


def denial(mesh: MeshState, own: WorkloadUid, permit: Permit) -> str:
    """Why policy as it is now denies what it once permitted; "" if it does not, or the pod is not known any more."""
    workload = mesh.workload(own)
    if workload is None:
        return ""
    verdict = evaluate(mesh.policies_for(workload), permit.facts)
    return verdict.reason if isinstance(verdict, Denial) else ""


# --- whom the authority means


def _by_ip(mesh: MeshState, own: Workload, local: SocketAddress, host: str, port: int) -> _Target | Answer:
    meant = SocketAddress(canonical(host), port)
    if meant.ip == local.ip:
        return _Target(port, meant)
    service = mesh.service_at(own.network, meant.ip, own.namespace)
    attached = service or mesh.workload_at(own.network, meant.ip)
    tunnelled = own.application_tunnel is not None
    if not tunnelled and not (attached and _is_waypoint_of(mesh, own, attached)):
        return Answer(400, f"authority {meant} is neither this pod's address {local.ip} nor served by it as a waypoint")
    mapped = _service_port(own, service, port) if service else port
    return _Target(mapped, meant) if mapped else Answer(503, f"{meant} has no port {port}")


def _by_hostname(mesh: MeshState, own: Workload, local: SocketAddress, host: str, port: int) -> _Target | Answer:
    service = mesh.service_named(host, own.namespace)
    if service is None:
        return Answer(503, f"no service has the hostname {host}")
    if service.key not in own.services and not _is_waypoint_of(mesh, own, service):
        return Answer(400, f"service {service.key} has no endpoint here")
    mapped = _service_port(own, service, port)
    if not mapped:
        return Answer(503, f"service {service.key} has no port {port} here")
    return _Target(mapped, _address_of(service, own, port, local))


def _service_port(own: Workload, service: Service, port: int) -> int | None:
    known = any(each.service_port == port for each in service.ports)
    return target_port(service, own, port) if known else None


def _address_of(service: Service, own: Workload, port: int, local: SocketAddress) -> SocketAddress:
    """A virtual address of the service, one of our network and of IPv4 if there is; a headless one has only ours."""
    ranked = sorted(service.addresses, key=lambda each: (each.network != own.network, ":" in each.ip))
    return SocketAddress(ranked[0].ip if ranked else local.ip, port)


def _is_waypoint_of(mesh: MeshState, own: Workload, attached: Service | Workload) -> bool:
    waypoints = [attached.waypoint]
    if isinstance(attached, Service):
        waypoints += [each.destination for each in attached.weighted_waypoints]
    return any(waypoint and _is_gateway(mesh, own, waypoint) for waypoint in waypoints)


def _is_gateway(mesh: MeshState, own: Workload, address: GatewayAddress) -> bool:
    found = mesh.gateway(address, own.network, own.namespace)
    if isinstance(found, Service):
        return found.key in own.services
    return found is not None and found.uid == own.uid


# --- delivery


def _deliver(mesh: MeshState, own: Workload, request: Connect, target: _Target) -> InboundPlan:
    if target.port in PROXY_PORTS:
        return Answer(503, f"port {target.port} is the proxy's own")
    tunnel = own.application_tunnel
    port = tunnel.port if tunnel is not None and tunnel.port else target.port
    client = _client(mesh, own, request)
    if isinstance(client, Answer):
        return client
    facts = ConnectionFacts(client.address.ip, SocketAddress(request.local.ip, port), client.identity)
    source = _source(mesh, own, request, facts)
    round_it = "" if client.by_waypoint else round_waypoint(mesh, own, target.port, request.peer)
    if round_it:
        return Answer(401, round_it, Flag.DENY, facts, source)
    verdict = evaluate(mesh.policies_for(own), facts)
    if isinstance(verdict, Denial):
        return Answer(401, verdict.reason, Flag.DENY, facts, source)
    speaks_proxy = tunnel is not None and tunnel.protocol is TunnelApplicationProtocol.PROXY
    return Deliver(
        facts.destination,
        verdict,
        client.address,
        service=_own_service(mesh, own, parse_forwarded(request.headers.get(FORWARDED, "")).host),
        source_workload=source,
        preamble=build_header(client.address, target.meant, client.identity) if speaks_proxy else b"",
    )


class _Client(Struct, frozen=True):
    """Who connects: the tunnel's peer, or the one that the pod's waypoint speaks for."""

    address: SocketAddress  # port 0 when nobody says it
    identity: SpiffeId
    by_waypoint: bool


def _client(mesh: MeshState, own: Workload, request: Connect) -> _Client | Answer:
    claimed = parse_forwarded(request.headers.get(FORWARDED, "")).client
    by_waypoint = is_waypoint(mesh, own, request.peer)
    spoken_for = request.headers.get(SOURCE_IDENTITY) if by_waypoint else None
    if spoken_for is None:
        # The tunnel's source address is proved; only the port of the app's own socket is believed from the header.
        honest = claimed is not None and claimed.ip == request.remote.ip
        return _Client(
            claimed if honest and claimed else SocketAddress(request.remote.ip, 0), request.peer, by_waypoint
        )
    try:
        identity = SpiffeId.parse(spoken_for)
    except ValueError as error:
        return Answer(400, f"the waypoint {request.peer} names a client that is none: {error}")
    if claimed is None:
        return Answer(400, f"the waypoint {request.peer} does not say at which address its client {identity} is")
    return _Client(claimed, identity, by_waypoint)


def _own_service(mesh: MeshState, own: Workload, hostname: str) -> str:
    """The hostname, if it is one of the pod's own services: a label for telemetry, nothing is decided by it."""
    service = mesh.service_named(hostname, own.namespace) if hostname else None
    return service.hostname if service is not None and service.key in own.services else ""


def _source(mesh: MeshState, own: Workload, request: Connect, facts: ConnectionFacts) -> WorkloadUid | None:
    """The workload at the client's address, if it has the identity that the client has proved."""
    if request.headers.get(FORWARDED_NETWORK, own.network) != own.network:
        return None
    found = mesh.workload_at(own.network, facts.source)
    return found.uid if found is not None and found.identity == facts.peer else None
