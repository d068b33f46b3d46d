"""What the mesh is now: workloads, services and policies, with every index that a connection needs.

One writer applies updates; look-ups are dict accesses on immutable values, cheap enough for each connection. Endpoints
are kept by the name of their service, so they may come before it. Whatever is removed leaves no trace: the state after
any sequence of updates equals one that is built from what is left.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesh.model.address import Ip
from mesh.model.index import Blocks, Endpoints, Grouped, Ranked
from mesh.model.policy import Authorization, PolicyScope, PolicySet
from mesh.model.update import MeshUpdate
from mesh.model.workload import (
    GatewayAddress,
    NetworkAddress,
    NetworkMode,
    PolicyKey,
    Service,
    ServiceKey,
    TunnelProtocol,
    Visibility,
    Workload,
    WorkloadStatus,
    WorkloadUid,
)

_POLICY_SETS = 1024  # as many as local pods differ in namespace and references; more means that references changed


class MeshState:
    """Not safe for several writers; a reader sees either all of an update or none of it when both share a thread."""

    def __init__(self, update: MeshUpdate | None = None) -> None:
        self.generation = 0  # of updates: as long as it stays, so does every decision
        self._workloads: dict[WorkloadUid, Workload] = {}
        self._services: dict[ServiceKey, Service] = {}
        self._policies: dict[PolicyKey, Authorization] = {}
        self._by_ip: Ranked[tuple[str, Ip], Workload] = Ranked(_workload_rank)
        self._by_hostname: Ranked[str, Workload] = Ranked(_workload_rank)
        self._endpoints: Grouped[ServiceKey, Workload] = Grouped()
        self._by_vip: Ranked[tuple[str, Ip], Service] = Ranked(_service_rank)
        self._by_block: Blocks[Service] = Blocks(_service_rank)
        self._by_name: Ranked[str, Service] = Ranked(_service_rank)
        self._in_scope: Grouped[str, Authorization] = Grouped()  # by namespace; global ones under ""
        self._drawable: dict[tuple[ServiceKey, bool], Endpoints] = {}
        self._policy_sets: dict[tuple[str, tuple[PolicyKey, ...]], PolicySet] = {}
        if update is not None:
            self.apply(update)

    # --- the one writer

    def apply(self, update: MeshUpdate) -> None:
        """Removals first, then upserts: what is named in both is there afterwards."""
        self.generation += 1
        removed_workloads: Iterable[WorkloadUid] = update.removed_workloads
        removed_services: Iterable[ServiceKey] = update.removed_services
        removed_policies: Iterable[PolicyKey] = update.removed_policies
        if update.replace:
            removed_workloads = self._workloads.keys() - {workload.uid for workload in update.workloads}
            removed_services = self._services.keys() - {service.key for service in update.services}
            removed_policies = self._policies.keys() - {policy.key for policy in update.policies}
        for uid in removed_workloads:
            self._remove_workload(uid)
        for service_key in removed_services:
            self._remove_service(service_key)
        for policy_key in removed_policies:
            self._remove_policy(policy_key)
        for workload in update.workloads:
            self._put_workload(workload)
        for service in update.services:
            self._put_service(service)
        for policy in update.policies:
            self._put_policy(policy)

    def _put_workload(self, workload: Workload) -> None:
        if self._workloads.get(workload.uid) == workload:
            return
        self._remove_workload(workload.uid)
        self._workloads[workload.uid] = workload
        for address in _indexed_addresses(workload):
            self._by_ip.add(address, workload)
        if workload.hostname:
            self._by_hostname.add(workload.hostname.lower(), workload)
        for key in workload.services:
            self._endpoints.put(key, workload.uid, workload)
            self._forget_drawable(key)

    def _remove_workload(self, uid: WorkloadUid) -> None:
        workload = self._workloads.pop(uid, None)
        if workload is None:
            return
        for address in _indexed_addresses(workload):
            self._by_ip.discard(address, workload)
        self._by_hostname.discard(workload.hostname.lower(), workload)
        for key in workload.services:
            self._endpoints.discard(key, uid)
            self._forget_drawable(key)

    def _forget_drawable(self, key: ServiceKey) -> None:
        self._drawable.pop((key, True), None)
        self._drawable.pop((key, False), None)

    def _put_service(self, service: Service) -> None:
        if self._services.get(service.key) == service:
            return
        self._remove_service(service.key)
        self._services[service.key] = service
        self._by_name.add(service.hostname.lower(), service)
        for address in set(service.addresses):
            if address.is_block:
                self._by_block.add(address.network, address.ip, address.length or 0, service)
            else:
                self._by_vip.add((address.network, address.ip), service)

    def _remove_service(self, key: ServiceKey) -> None:
        service = self._services.pop(key, None)
        if service is None:
            return
        self._by_name.discard(service.hostname.lower(), service)
        for address in set(service.addresses):
            if address.is_block:
                self._by_block.discard(address.network, address.ip, address.length or 0, service)
            else:
                self._by_vip.discard((address.network, address.ip), service)

    def _put_policy(self, policy: Authorization) -> None:
        if self._policies.get(policy.key) == policy:
            return
        self._remove_policy(policy.key)
        self._policies[policy.key] = policy
        if policy.scope is not PolicyScope.WORKLOAD_SELECTOR:
            self._in_scope.put(_policy_group(policy), policy.key, policy)
        self._policy_sets.clear()

    def _remove_policy(self, key: PolicyKey) -> None:
        policy = self._policies.pop(key, None)
        if policy is None:
            return
        self._in_scope.discard(_policy_group(policy), key)
        self._policy_sets.clear()

    # --- look-ups

    def workload(self, uid: WorkloadUid) -> Workload | None:
        return self._workloads.get(uid)

    def workload_at(self, network: str, ip: Ip) -> Workload | None:
        """Where several share an address: pods first, then those with HBONE. Host-network pods are not found by IP."""
        found = self._by_ip.get((network, ip))
        return found[0] if found else None

    def service(self, key: ServiceKey) -> Service | None:
        return self._services.get(key)

    def service_at(self, network: str, ip: Ip, namespace: str) -> Service | None:
        """The service with this virtual address that a client in `namespace` means: an exact address before a block,
        the client's own namespace before others, then the longest block, then canonical ones."""
        exact = _visible(self._by_vip.get((network, ip)), namespace)
        if exact:
            return min(exact, key=lambda service: (service.namespace != namespace, *_service_rank(service)))
        blocks = [(n, service) for n, service in self._by_block.get(network, ip) if _can_see(namespace, service)]
        if not blocks:
            return None
        return min(blocks, key=lambda each: (each[1].namespace != namespace, -each[0], *_service_rank(each[1])))[1]

    def service_named(self, hostname: str, namespace: str, preferred_namespace: str = "") -> Service | None:
        """The service that a client in `namespace` means by a hostname: its own, a canonical one, a preferred one."""
        found = _visible(self._by_name.get(hostname.lower()), namespace)
        if not found:
            return None
        return min(
            found,
            key=lambda service: (
                service.namespace != namespace,
                not service.canonical,
                service.namespace != preferred_namespace,
                service.namespace,
            ),
        )

    def workload_named(self, hostname: str, namespace: str) -> Workload | None:
        """A workload of this namespace by its own hostname (a pod of a stateful set, a gateway)."""
        for workload in self._by_hostname.get(hostname.lower()):
            if workload.namespace == namespace:
                return workload
        return None

    def endpoints(self, key: ServiceKey, healthy: bool = True) -> Endpoints:
        """The endpoints of a service, known or not yet known; only the healthy ones unless told otherwise."""
        found = self._drawable.get((key, healthy))
        if found is None:
            members = self._endpoints.get(key)
            if not members:
                return _NO_ENDPOINTS  # not remembered: the names come from outside
            found = Endpoints(each for each in members if not healthy or each.status is WorkloadStatus.HEALTHY)
            self._drawable[key, healthy] = found
        return found

    def gateway(self, address: GatewayAddress, network: str, namespace: str) -> Service | Workload | None:
        """What a waypoint or gateway address names, as seen by a client on `network` in `namespace`."""
        destination = address.destination
        if isinstance(destination, NetworkAddress):
            return self.service_at(destination.network or network, destination.ip, namespace) or self.workload_at(
                destination.network or network, destination.ip
            )
        service = self._services.get(destination)
        if service is not None:
            return service
        where, _, hostname = destination.partition("/")
        return self.workload_named(hostname, where)

    def policies_for(self, workload: Workload) -> PolicySet:
        """The policies that connections to `workload` are subject to, and those it names that have not come."""
        wanted = workload.namespace, workload.authorization_policies
        found = self._policy_sets.get(wanted)
        if found is None:
            if len(self._policy_sets) >= _POLICY_SETS:
                self._policy_sets.clear()
            found = self._policy_sets[wanted] = self._collect_policies(*wanted)
        return found

    def _collect_policies(self, namespace: str, references: tuple[PolicyKey, ...]) -> PolicySet:
        policies = {policy.key: policy for group in ("", namespace) for policy in self._in_scope.get(group)}
        missing = []
        for key in references:
            policy = self._policies.get(key)
            if policy is None:
                missing.append(key)
            else:
                policies[key] = policy
        return PolicySet.of(policies.values(), missing)

    # --- the whole

    def snapshot(self) -> MeshUpdate:
        """All of it as one update that replaces, in order of name."""
        return MeshUpdate(
            workloads=tuple(self._workloads[uid] for uid in sorted(self._workloads)),
            services=tuple(self._services[key] for key in sorted(self._services)),
            policies=tuple(self._policies[key] for key in sorted(self._policies)),
            replace=True,
        )

    def staged(self) -> dict[ServiceKey, Endpoints]:
        """Endpoints of services that are not known (yet)."""
        return {key: self.endpoints(key, False) for key in self._endpoints.keys() if key not in self._services}  # noqa: SIM118

    def indexes(self) -> dict[str, object]:
        """The contents of every index: what tests compare to see that nothing was left behind."""
        return {
            "ip": self._by_ip.contents(),
            "hostname": self._by_hostname.contents(),
            "endpoints": self._endpoints.contents(),
            "vip": self._by_vip.contents(),
            "block": self._by_block.contents(),
            "name": self._by_name.contents(),
            "policy": self._in_scope.contents(),
        }


_NO_ENDPOINTS = Endpoints()


def _indexed_addresses(workload: Workload) -> set[tuple[str, Ip]]:
    if workload.network_mode is NetworkMode.HOST_NETWORK:
        return set()
    return {(workload.network, ip) for ip in workload.addresses}


def _workload_rank(workload: Workload) -> tuple[bool, bool, str]:
    return "//Pod/" not in workload.uid, workload.tunnel_protocol is not TunnelProtocol.HBONE, workload.uid


def _service_rank(service: Service) -> tuple[bool, str]:
    return not service.canonical, service.key


def _policy_group(policy: Authorization) -> str:
    return "" if policy.scope is PolicyScope.GLOBAL else policy.namespace


def _can_see(namespace: str, service: Service) -> bool:
    return service.visibility is Visibility.PUBLIC or service.namespace == namespace


def _visible(services: tuple[Service, ...], namespace: str) -> tuple[Service, ...]:
    return tuple(service for service in services if _can_see(namespace, service))
