"""What passes which waypoint, by which routes and policies; and what the status of all these objects should say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controller.compile import binding as bindings
from controller.compile import gateways, grants, routes
from controller.compile.backends import References
from controller.compile.binding import Binding
from controller.compile.gateways import Traffic, Waypoint
from controller.compile.http_policies import compile_http_policy, spec_of, targets_of
from controller.compile.index import ObjectIndex
from controller.compile.options import MeshOptions
from controller.compile.parents import attachments, service_of
from controller.compile.published import Published
from controller.compile.routes import CompiledRoute
from controller.compile.services import is_in_mesh, service_key
from controller.compile.wanted import NOTHING, WantedParent, WantedStatus
from controller.compile.waypoint_status import gateway_status, policy_status, service_status
from controller.compile.workloads import is_ready, is_terminal
from controller.store.interface import Key
from controller.store.shapes import Pod, Service
from mesh.model.routing import Gateway, ServiceRouting
from mesh.model.workload import PolicyKey, WaypointBinding

Routings = dict[str, Published]


@dataclass(frozen=True, slots=True)
class ServiceBinding:
    """Of the service as a whole, or (`split`) of its endpoints one by one."""

    whole: Binding | None = None
    split: tuple[Waypoint, ...] = ()

    @property
    def waypoints(self) -> tuple[Waypoint, ...]:
        """Those that are to serve it."""
        if self.whole is not None and self.whole.bound:
            return (self.whole.waypoint,) if self.whole.waypoint is not None and self.whole.admitted else ()
        return self.split


class RoutingCompiler:
    """Reads the index; keeps nothing."""

    def __init__(self, index: ObjectIndex, options: MeshOptions) -> None:
        self._index = index
        self._waypoints = index.waypoints
        self._options = options

    # --- who passes what

    def pod_fields(self, key: Key, pod: Pod) -> dict[str, Any]:
        """The fields of the pod's Workload."""
        binding = self._of_pod(key, pod)
        if binding is None or not binding.bound:
            return {}
        return {
            "waypoint": gateways.address(binding.gateway, self._options),
            "waypoint_binding": bindings.of_workload(binding),
            "waypoint_failure": self._failure_mode(key, pod.metadata.annotations),
        }

    def service_fields(self, key: Key, service: Service) -> dict[str, Any]:
        """The fields of the mesh's Service."""
        whole = self._of_service(key, service).whole
        if whole is None or not whole.bound:
            return {}
        return {
            "waypoint": gateways.address(whole.gateway, self._options),
            "waypoint_failure": self._failure_mode(key, service.metadata.annotations),
        }

    def service(self, key: Key, service: Service) -> tuple[Routings, WantedStatus]:
        binding = self._of_service(key, service)
        found: Routings = {}
        if binding.waypoints:
            attached = [self._route(each) for each in sorted(self._waypoints.routes_by_parent.sources(key))]
            ports = routes.routing_of(key, service, attached)
            policies = self._policies_of(key)
            for waypoint in binding.waypoints:
                name = service_key(service, self._options)
                value = ServiceRouting(waypoint.identifier, name, ports, policies)
                found[value.key] = Published(value, (waypoint.identifier,))
        ready = binding.whole is not None and self._is_ready(binding.whole.gateway)
        return found, service_status(binding.whole, [each.identifier for each in binding.split], ready)

    def _of_pod(self, key: Key, pod: Pod) -> Binding | None:
        if gateways.GATEWAY_NAME in pod.metadata.labels:
            return None  # a waypoint passes no waypoint
        of_account = self._waypoints.of_account(key.namespace, pod.spec.service_account_name)
        return self._of_object(key, pod.metadata.labels, of_account, Traffic.WORKLOAD)

    def _of_service(self, key: Key, service: Service) -> ServiceBinding:
        if gateways.GATEWAY_NAME in service.metadata.labels or not is_in_mesh(service):
            return ServiceBinding()
        chosen = self._of_endpoints(key)
        shared = next(iter(chosen.values())) if len(chosen) == 1 else None
        whole = self._of_object(key, service.metadata.labels, shared, Traffic.SERVICE)
        split = tuple(each for _, each in sorted(chosen.items()) if each is not None)
        opted_out = bindings.USE_WAYPOINT in service.metadata.labels
        return ServiceBinding(whole, () if whole is not None or opted_out else split)

    def _of_endpoints(self, key: Key) -> dict[str, Waypoint | None]:
        """The waypoints that take all traffic of a pod behind a service; under "" None, if there is a pod without."""
        if not self._waypoints.gateways:
            return {}
        index = self._index
        pods = {pod for piece in index.slices_by_service.sources(key) for pod in index.pods_behind(piece)}
        found = [self._takes_all(pod, index.pods[pod]) for pod in pods if not is_terminal(index.pods[pod])]
        return {each.identifier if each is not None else "": each for each in found}

    def _takes_all(self, key: Key, pod: Pod) -> Waypoint | None:
        binding = self._of_pod(key, pod)
        whole = binding is not None and bindings.of_workload(binding) is WaypointBinding.ALL
        return binding.serves if binding is not None and whole else None

    def _of_object(
        self, key: Key, labels: bindings.Labels, of_account: Waypoint | None, wanted: Traffic
    ) -> Binding | None:
        of_namespace = self._index.namespace_metadata(key.namespace).labels
        return bindings.of_object(key.namespace, labels, of_namespace, of_account, wanted, self._waypoints.waypoint)

    def _failure_mode(self, key: Key, annotations: bindings.Labels) -> Any:
        return bindings.failure_mode(annotations, self._index.namespace_metadata(key.namespace).annotations)

    # --- routes

    def route_status(self, key: Key) -> WantedStatus:
        compiled = self._route(key)
        return WantedStatus(parents=tuple(self._parent_statuses(compiled)))

    def _parent_statuses(self, compiled: CompiledRoute) -> Iterator[WantedParent]:
        for attachment in compiled.attachments:
            service = self._index.services.get(attachment.target)
            others = [self._route(each) for each in self._waypoints.routes_by_parent.sources(attachment.target)]
            passed = self._of_service(attachment.target, service).waypoints if service is not None else ()
            names = [each.identifier for each in passed]
            found = routes.conditions(compiled, attachment, others, names)
            yield WantedParent(attachment.reference, found)

    def _route(self, key: Key) -> CompiledRoute:
        given = self._waypoints.routes[key]
        find = self._index.services.get

        parents = [service_of(each, key.namespace) for each in given.spec.parent_refs]

        def permitted(target: Key) -> bool:
            return grants.is_consumed(target, parents) or grants.permits(
                self._waypoints.grants.values(), key.kind, key.namespace, target
            )

        def is_waypoint(gateway: Key) -> bool:
            return self._waypoints.waypoint(gateway) is not None

        references = References(key.kind, key.namespace, self._options, find, permitted)
        attached = attachments(key.kind, key.namespace, given.spec.parent_refs, find, is_waypoint)
        return routes.compile_route(key, given, references, attached)

    # --- gateways

    def gateway(self, key: Key) -> tuple[Routings, WantedStatus]:
        given, waypoint = self._waypoints.gateways[key], self._waypoints.waypoint(key)
        if waypoint is None:
            return {}, NOTHING
        value = Gateway(
            waypoint.identifier,
            (*self._policies_of(key), *self._policies_of(Key("GatewayClass", "", given.spec.gateway_class_name))),
            waypoint.account,
            waypoint.services,
            waypoint.workloads,
            waypoint.client_header,
        )
        service = self._index.services.get(Key("Service", key.namespace, key.name))
        status = gateway_status(given, waypoint, self._waypoints.classes, service, self._is_ready(key), self._options)
        return {value.key: Published(value, (waypoint.identifier,))}, status

    def _is_ready(self, gateway: Key) -> bool:
        pods = (self._index.pods[pod] for pod in self._waypoints.pods_of_gateway.sources(gateway))
        return any(is_ready(pod) and not is_terminal(pod) for pod in pods)

    # --- policies

    def _policies_of(self, target: Key) -> tuple[PolicyKey, ...]:
        keys = sorted(self._waypoints.policies_by_target.sources(target))
        return tuple(PolicyKey(f"{key.namespace}/{key.name}") for key in keys)

    def policy(self, key: Key) -> tuple[Routings, WantedStatus]:
        policy = self._index.policies[key]
        spec = spec_of(policy)
        if spec is None:
            return {}, policy_status(None, (), (), ())
        targets = targets_of(key.namespace, spec, self._options.root_namespaces)
        value, problems = compile_http_policy(key, policy, spec)
        waypoints = {name for target in targets.keys for name in self._serving(target)}
        missing = tuple(f"there is no {target}" for target in targets.keys if not self._exists(target))
        idle = tuple(
            f"{target} has no waypoint" for target in targets.keys if self._exists(target) and not self._serving(target)
        )
        status = policy_status(bool(waypoints), (*targets.problems, *problems), missing, idle)
        return ({value.key: Published(value, tuple(sorted(waypoints)))} if waypoints else {}), status

    def _exists(self, target: Key) -> bool:
        """A class need not: it is a name that waypoints have."""
        if target.kind == "Service":
            return target in self._index.services
        return target.kind != "Gateway" or target in self._waypoints.gateways

    def _serving(self, target: Key) -> set[str]:
        """The waypoints that evaluate a policy of this target."""
        if target.kind == "Service":
            service = self._index.services.get(target)
            return {each.identifier for each in self._of_service(target, service).waypoints} if service else set()
        keys = [target] if target.kind == "Gateway" else self._waypoints.gateways_of_class(target)
        return {found.identifier for key in keys if (found := self._waypoints.waypoint(key)) is not None}
