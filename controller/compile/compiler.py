"""Events in, changes of the mesh out: only what an event concerns is compiled again, only what differs goes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from controller.compile import services, workloads
from controller.compile.binding import FAILURE_MODE, failure_problem
from controller.compile.gateways import is_ours
from controller.compile.index import ObjectIndex, service_of, winner
from controller.compile.options import MeshOptions
from controller.compile.problem import Problem
from controller.compile.published import NO_ROUTING, Published, RoutingUpdate
from controller.compile.routing import RoutingCompiler
from controller.compile.wanted import NOTHING, WantedStatus
from controller.compile.waypoint_status import class_status
from controller.store.interface import Event, Key
from controller.store.shapes import Endpoint, EndpointSlice, Pod, Service
from mesh.model.enrolment import AMBIENT, DATAPLANE_MODE, NONE
from mesh.model.policy import Authorization
from mesh.model.update import MeshUpdate
from mesh.model.workload import Locality, PolicyKey, PortMapping, ServiceKey, Workload, WorkloadUid
from mesh.model.workload import Service as MeshService

Problems = tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one object contributes to the mesh."""

    workloads: Mapping[WorkloadUid, Workload] = field(default_factory=dict)
    services: Mapping[ServiceKey, MeshService] = field(default_factory=dict)
    policies: Mapping[PolicyKey, Authorization] = field(default_factory=dict)
    problems: Problems = ()
    routings: Mapping[str, Published] = field(default_factory=dict)
    status: WantedStatus = NOTHING


_NOTHING = Compiled()


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs since the last time; `problems` holds the objects whose problems differ, () for solved ones.

    `examined` are the objects that were looked at, changed or not.
    """

    update: MeshUpdate
    problems: Mapping[Key, Problems]
    examined: tuple[Key, ...]
    routing: RoutingUpdate = NO_ROUTING


class Compiler:
    """The mesh as the objects taken so far describe it. Never raises because of an object."""

    def __init__(self, options: MeshOptions) -> None:
        self.index = ObjectIndex(options.root_namespaces)
        self._options = options
        self._routing = RoutingCompiler(self.index, options)
        self._compiled: dict[Key, Compiled] = {}

    def take(self, event: Event) -> None:
        self.index.take(event)

    def changes(self) -> Changes:
        """The difference that the events since the last call make."""
        examined = tuple(sorted(self.index.take_stale()))
        differences = [(key, *self._renew(key)) for key in examined]
        problems = {key: after.problems for key, before, after in differences if before.problems != after.problems}
        pairs = [(before, after) for _, before, after in differences]
        return Changes(_update(pairs), problems, examined, _routing_update(pairs))

    def everything(self) -> MeshUpdate:
        """All that the last `changes` brought the mesh to."""
        compiled = self._compiled.values()
        return MeshUpdate(
            workloads=tuple(workload for each in compiled for workload in each.workloads.values()),
            services=tuple(service for each in compiled for service in each.services.values()),
            policies=(self.index.security.strict, *(policy for each in compiled for policy in each.policies.values())),
            replace=True,
        )

    def all_routing(self) -> RoutingUpdate:
        """The same, of what waypoints are told."""
        found = (published for each in self._compiled.values() for published in each.routings.values())
        return RoutingUpdate(tuple(found), replace=True)

    def wanted_status(self, key: Key) -> WantedStatus:
        return self._compiled.get(key, _NOTHING).status

    def counts(self) -> tuple[int, int]:
        """Workloads and services."""
        compiled = self._compiled.values()
        return sum(len(each.workloads) for each in compiled), sum(len(each.services) for each in compiled)

    def problems(self) -> Problems:
        return tuple(sorted(problem for each in self._compiled.values() for problem in each.problems))

    def problems_of(self, key: Key) -> Problems:
        return self._compiled.get(key, _NOTHING).problems

    def _renew(self, key: Key) -> tuple[Compiled, Compiled]:
        before = self._compiled.pop(key, _NOTHING)
        after = self._compile(key)
        if key in self.index.malformed:
            after = replace(after, problems=(*after.problems, self.index.malformed[key]))
        if after != _NOTHING:
            self._compiled[key] = after
        return before, after

    def _compile(self, key: Key) -> Compiled:
        index = self.index
        if key in index.pods:
            return self._pod(key, index.pods[key])
        if key in index.services:
            return self._service(key, index.services[key])
        if key in index.slices:
            return self._slice(key, index.slices[key])
        if key in index.policies:
            policy = index.security.policy(key)
            routings, status = self._routing.policy(key)
            return replace(_policies(policy.authorization, policy.problems), routings=routings, status=status)
        if key in index.authentications:
            return _policies(*index.security.authentication(key))
        if key in index.namespaces:
            metadata = index.namespaces[key].metadata
            return Compiled(problems=(*_mode_problems(key, metadata.labels), *_annotation(key, metadata.annotations)))
        if key in index.waypoints.gateways:
            routings, status = self._routing.gateway(key)
            return Compiled(routings=routings, status=status)
        if key in index.waypoints.routes:
            return Compiled(status=self._routing.route_status(key))
        if key in index.waypoints.classes and is_ours(key.name, index.waypoints.classes):
            return Compiled(status=class_status())
        return _NOTHING

    # --- pods

    def _pod(self, key: Key, pod: Pod) -> Compiled:
        owners = {
            ip: winner(self.index.pods_by_address.sources(ip), self.index.pods)
            for ip in workloads.claimed_addresses(pod)
        }
        clashes = [
            Problem(key, "status.podIPs", f"{ip} is the address of {owner} already; this pod is not reached by it")
            for ip, owner in owners.items()
            if owner != key
        ]
        usable = workloads.addresses(pod) if pod.spec.host_network else {ip for ip in owners if owners[ip] == key}
        place = self._locality(pod.spec.node_name)
        workload = workloads.of_pod(pod, usable, place, self._memberships(key), self._options)
        if workload is not None:
            references = self.index.security.references(pod)
            workload = replace(workload, authorization_policies=references, **self._routing.pod_fields(key, pod))
        found = {workload.uid: workload} if workload is not None else {}
        notes = (*_mode_problems(key, pod.metadata.labels), *_failure_mode(key, pod.metadata.annotations))
        return Compiled(found, problems=(*clashes, *notes))

    def _locality(self, node: str) -> Locality:
        return workloads.locality(self.index.nodes.get(Key("Node", "", node)))

    def _memberships(self, pod: Key) -> workloads.Memberships:
        """The services of a pod: EndpointSlices are the truth, selectors are how they come about."""
        found: dict[ServiceKey, set[PortMapping]] = {}
        for piece_key in self.index.slices_by_pod.sources(pod):
            piece = self.index.slices[piece_key]
            endpoints = (endpoint for endpoint in piece.endpoints if _pod_key(piece, endpoint) == pod)
            if any(self._missing(piece, endpoint) is None for endpoint in endpoints):
                for service, ports in self._ports(piece).items():
                    found.setdefault(service, set()).update(ports)
        return {
            service: tuple(sorted(found[service], key=lambda port: (port.service_port, port.target_port)))
            for service in sorted(found)
        }

    # --- services

    def _service(self, key: Key, service: Service) -> Compiled:
        if not services.is_in_mesh(service):
            return _NOTHING
        index = self.index
        owners = {
            ip: winner(index.services_by_address.sources(ip), index.services)
            for ip in services.virtual_addresses(service)
        }
        clashes = [
            Problem(key, "spec.clusterIPs", f"{ip} is the address of {owner} already; this service does not have it")
            for ip, owner in owners.items()
            if owner != key
        ]
        namespace = index.namespaces.get(Key("Namespace", "", key.namespace))
        compiled = services.compile_service(
            service,
            {ip for ip in owners if owners[ip] == key},
            namespace.metadata.annotations if namespace is not None else {},
            self._options,
        )
        compiled = replace(compiled, **self._routing.service_fields(key, service))
        problems = (*clashes, *self._unnamed_ports(key, service), *_annotation(key, service.metadata.annotations))
        routings, status = self._routing.service(key, service)
        return Compiled(services={compiled.key: compiled}, problems=problems, routings=routings, status=status)

    def _unnamed_ports(self, key: Key, service: Service) -> Iterator[Problem]:
        """Named target ports that no endpoint has: connections to them can go nowhere."""
        pieces = [self.index.slices[piece] for piece in self.index.slices_by_service.sources(key)]
        if not any(piece.endpoints for piece in pieces):
            return
        reached = {port.service_port for piece in pieces for port in services.port_mappings(service, piece)}
        for number, port in enumerate(service.spec.ports):
            if isinstance(port.target_port, str) and port.protocol == "TCP" and port.port not in reached:
                yield Problem(
                    key,
                    f"spec.ports[{number}].targetPort",
                    f"no endpoint has a port named {port.target_port!r}; port {port.port} leads nowhere",
                )

    # --- endpoint slices

    def _slice(self, key: Key, piece: EndpointSlice) -> Compiled:
        found: dict[WorkloadUid, Workload] = {}
        problems = []
        for number, endpoint in enumerate(piece.endpoints):
            missing = self._missing(piece, endpoint)
            if missing is not None:
                problems.append(Problem(key, f"endpoints[{number}].targetRef", missing))
            elif _pod_key(piece, endpoint) is None and piece.address_type != "FQDN":
                place = self._locality(endpoint.node_name)
                workload = workloads.of_endpoint(piece, endpoint, place, self._ports(piece), self._options)
                found[workload.uid] = workload
        return Compiled(found, problems=tuple(problems))

    def _missing(self, piece: EndpointSlice, endpoint: Endpoint) -> str | None:
        """What is wrong with the pod that an endpoint refers to."""
        key = _pod_key(piece, endpoint)
        if key is None:
            return None
        pod, uid = self.index.pods.get(key), endpoint.target_ref.uid if endpoint.target_ref else ""
        if pod is None:
            return f"there is no {key}; this endpoint is not used"
        if uid and uid != pod.metadata.uid:
            return f"{key} is another one than the one with uid {uid}; this endpoint is not used"
        return None

    def _ports(self, piece: EndpointSlice) -> workloads.Memberships:
        """The service that a slice belongs to, with the ports by which its endpoints are reached."""
        for key in service_of(piece):
            service = self.index.services.get(key)
            if service is not None and services.is_in_mesh(service):
                return {services.service_key(service, self._options): services.port_mappings(service, piece)}
        return {}


def _policies(policy: Authorization | None, problems: Problems) -> Compiled:
    return Compiled(policies={policy.key: policy} if policy is not None else {}, problems=problems)


def _pod_key(piece: EndpointSlice, endpoint: Endpoint) -> Key | None:
    reference = endpoint.target_ref
    return Key("Pod", piece.metadata.namespace, reference.name) if reference and reference.kind == "Pod" else None


def _mode_problems(key: Key, labels: Mapping[str, str]) -> Iterator[Problem]:
    mode = labels.get(DATAPLANE_MODE, NONE)
    if mode not in (AMBIENT, NONE):
        field = f'metadata.labels["{DATAPLANE_MODE}"]'
        yield Problem(key, field, f"{mode!r} is neither {AMBIENT} nor {NONE}; it has no effect")


def _annotation(key: Key, annotations: Mapping[str, str]) -> Iterator[Problem]:
    problem = services.distribution_problem(annotations)
    if problem:
        yield Problem(key, f'metadata.annotations["{services.TRAFFIC_DISTRIBUTION}"]', problem)
    yield from _failure_mode(key, annotations)


def _failure_mode(key: Key, annotations: Mapping[str, str]) -> Iterator[Problem]:
    problem = failure_problem(annotations)
    if problem:
        yield Problem(key, f'metadata.annotations["{FAILURE_MODE}"]', problem)


def _update(differences: list[tuple[Compiled, Compiled]]) -> MeshUpdate:
    return MeshUpdate(
        workloads=tuple(
            workload
            for before, after in differences
            for uid, workload in after.workloads.items()
            if before.workloads.get(uid) != workload
        ),
        services=tuple(
            service
            for before, after in differences
            for key, service in after.services.items()
            if before.services.get(key) != service
        ),
        removed_workloads=tuple(
            uid for before, after in differences for uid in before.workloads if uid not in after.workloads
        ),
        removed_services=tuple(
            key for before, after in differences for key in before.services if key not in after.services
        ),
        policies=tuple(
            policy
            for before, after in differences
            for key, policy in after.policies.items()
            if before.policies.get(key) != policy
        ),
        removed_policies=tuple(
            key for before, after in differences for key in before.policies if key not in after.policies
        ),
    )


def _routing_update(differences: list[tuple[Compiled, Compiled]]) -> RoutingUpdate:
    return RoutingUpdate(
        tuple(
            published
            for before, after in differences
            for key, published in after.routings.items()
            if before.routings.get(key) != published
        ),
        tuple(key for before, after in differences for key in before.routings if key not in after.routings),
    )
