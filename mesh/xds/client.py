"""The client of one aggregated delta xDS stream, as a ztunnel is: what to send, what an answer changes. No IO.

What cannot be taken in is refused (NACK) by name while the rest of the same response is applied. Nothing is opened by
that: the last good version of a workload or service stays, and a policy is replaced by one that is at least as strict
(mesh.wire.authorization.refusal).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mesh.model.policy import Authorization
from mesh.model.update import MeshUpdate
from mesh.model.workload import PolicyKey, Service, ServiceKey, Workload, WorkloadUid
from mesh.wire.authorization import decode_authorization, refusal
from mesh.wire.errors import InvalidResource
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE
from mesh.wire.workload import decode_address

TYPES = (ADDRESS_TYPE, AUTHORIZATION_TYPE)  # the order in which they are asked for
_UNKNOWN_VERSION = ""  # claims a resource without claiming to be up to date: the server sends or removes it
_REASONS_TOLD = 20  # in one NACK; a server that got all of it wrong needs no more examples


@dataclass(frozen=True, slots=True)
class Received:
    """What one response means: the change to make, the ACK or NACK to send, and what was refused."""

    update: MeshUpdate
    reply: DeltaDiscoveryRequest
    rejected: tuple[InvalidResource, ...] = ()


class ClientSession:
    """Outlives streams: call `connect` at the start of each, `received` for each response.

    `ready` once every type has been answered; from then on the mesh is known, and stays known over reconnects.
    `rejected` holds the resources that are refused now, by name.
    """

    def __init__(
        self, node: DeltaDiscoveryRequest.Node, held: MeshUpdate | None = None, types: tuple[str, ...] = TYPES
    ) -> None:
        """`held` is what is known from an earlier life; the server is asked to bring it up to date."""
        self._node = node
        self._types = types
        self._versions: dict[str, dict[str, str]] = {
            type_url: dict.fromkeys(names, _UNKNOWN_VERSION) for type_url, names in _names(held or MeshUpdate()).items()
        }
        self._answered: set[str] = set()
        self.rejected: dict[str, InvalidResource] = {}

    @property
    def ready(self) -> bool:
        return len(self._answered) == len(self._types)

    def connect(self) -> list[DeltaDiscoveryRequest]:
        """The first requests of a new stream: everything of each type, less what is held in the same version."""
        return [
            DeltaDiscoveryRequest(node=self._node, type_url=url, initial_resource_versions=self._versions[url])
            for url in self._types
        ]

    def received(self, response: DeltaDiscoveryResponse) -> Received:
        """A response to a type that nobody asked for changes nothing and is acknowledged."""
        if response.type_url not in self._types:
            return Received(MeshUpdate(), _reply(response, ()))
        self._answered.add(response.type_url)
        good, rejected = self._take(response)
        named = {resource.name for resource in response.resources}
        removed = [name for name in response.removed_resources if name not in named]
        for name in removed:
            self._versions[response.type_url].pop(name, None)
            self.rejected.pop(name, None)
        return Received(_update(response.type_url, good, removed), _reply(response, rejected), tuple(rejected))

    def _take(
        self, response: DeltaDiscoveryResponse
    ) -> tuple[list[Workload | Service | Authorization], list[InvalidResource]]:
        versions = self._versions[response.type_url]
        taken: dict[str, Workload | Service | Authorization] = {}
        rejected: list[InvalidResource] = []
        for resource in response.resources:
            try:
                taken[resource.name] = _decode(response.type_url, resource)
                versions[resource.name] = resource.version
                self.rejected.pop(resource.name, None)
            except InvalidResource as error:
                rejected.append(error)
                self.rejected[resource.name] = error
                if response.type_url == AUTHORIZATION_TYPE:
                    taken[resource.name] = refusal(resource.name, resource.resource.value)
                    versions[resource.name] = _UNKNOWN_VERSION
                elif resource.name in versions:
                    versions[resource.name] = _UNKNOWN_VERSION
        return list(taken.values()), rejected


def ztunnel_node(node_name: str, pod_name: str, namespace: str, ip: str) -> DeltaDiscoveryRequest.Node:
    """How a ztunnel presents itself (Istio: src/xds/client.rs)."""
    message = DeltaDiscoveryRequest.Node(
        id=f"ztunnel~{ip}~{pod_name}.{namespace}~{namespace}.svc.cluster.local",
    )
    message.metadata.update({"NAME": pod_name, "NAMESPACE": namespace, "INSTANCE_IPS": ip, "NODE_NAME": node_name})
    return message


def _decode(type_url: str, resource: Resource) -> Workload | Service | Authorization:
    if resource.resource.type_url != type_url:
        raise InvalidResource(resource.name, "resource", f"of type {resource.resource.type_url!r}, not {type_url!r}")
    if type_url == ADDRESS_TYPE:
        return decode_address(resource.name, resource.resource.value)
    return decode_authorization(resource.name, resource.resource.value)


def _reply(response: DeltaDiscoveryResponse, rejected: Iterable[InvalidResource]) -> DeltaDiscoveryRequest:
    reasons = [str(error) for error in rejected]
    reply = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
    if reasons:
        more = len(reasons) - _REASONS_TOLD
        told = reasons[:_REASONS_TOLD] + ([f"and {more} more"] if more > 0 else [])
        reply.error_detail.message = "; ".join(told)
    return reply


def _update(type_url: str, values: Iterable[Workload | Service | Authorization], removed: Iterable[str]) -> MeshUpdate:
    if type_url == AUTHORIZATION_TYPE:
        return MeshUpdate(
            policies=tuple(value for value in values if isinstance(value, Authorization)),
            removed_policies=tuple(_policy_key(name) for name in removed),
        )
    values, removed = tuple(values), tuple(removed)
    return MeshUpdate(
        workloads=tuple(value for value in values if isinstance(value, Workload)),
        services=tuple(value for value in values if isinstance(value, Service)),
        # The name of a removed Address does not say which of both it was; removing what is not there is harmless.
        removed_workloads=tuple(WorkloadUid(name) for name in removed),
        removed_services=tuple(ServiceKey(name) for name in removed if name.count("/") == 1),
    )


def _policy_key(name: str) -> PolicyKey:
    """Also for a name without namespace, which only a stand-in can have."""
    return PolicyKey(name if "/" in name else f"/{name}")


def _names(update: MeshUpdate) -> Mapping[str, list[str]]:
    addresses: list[str] = [workload.uid for workload in update.workloads]
    addresses += [service.key for service in update.services]
    return {ADDRESS_TYPE: addresses, AUTHORIZATION_TYPE: [policy.key for policy in update.policies]}
