"""The fields that the mesh reads, with their types: what a manifest is checked against, and how the compiler reads it.

Field names, types and defaults are those of the Kubernetes API (k8s.io/api core/v1, discovery/v1, apps/v1). Fields that
the mesh does not read are not here and may hold anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, json

Port = Annotated[int, Meta(ge=1, le=65535)]
NotNegative = Annotated[int, Meta(ge=0)]
Protocol = Literal["TCP", "UDP", "SCTP"]


class Shape(Struct, frozen=True, rename="camel", kw_only=True):
    """Base: camelCase names, unknown fields ignored."""


class OwnerReference(Shape, frozen=True):
    kind: str
    name: str
    controller: bool = False


class Metadata(Shape, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: tuple[OwnerReference, ...] = ()
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""


class Condition(Shape, frozen=True):
    type: str
    status: str
    reason: str = ""
    message: str = ""


class AnyObject(Shape, frozen=True):
    """A kind of which only the metadata is read."""

    metadata: Metadata


class Namespace(AnyObject, frozen=True):
    """Its labels and annotations apply to what is in it."""


class Node(AnyObject, frozen=True):
    """Its labels say where it is."""


class ContainerPort(Shape, frozen=True):
    container_port: Port
    name: str = ""
    protocol: Protocol = "TCP"


class EnvironmentVariable(Shape, frozen=True):
    name: str
    value: str = ""


class Container(Shape, frozen=True):
    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvironmentVariable, ...] = ()
    ports: tuple[ContainerPort, ...] = ()


class PodSpec(Shape, frozen=True):
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    node_name: str = ""
    node_selector: dict[str, str] = {}
    service_account_name: str = "default"
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    termination_grace_period_seconds: NotNegative = 30


class PodIp(Shape, frozen=True):
    ip: str = ""


class PodStatus(Shape, frozen=True):
    phase: str = ""
    pod_ip: str = field(default="", name="podIP")
    pod_ips: tuple[PodIp, ...] = field(default=(), name="podIPs")
    conditions: tuple[Condition, ...] = ()


class Pod(Shape, frozen=True):
    metadata: Metadata
    spec: PodSpec
    status: PodStatus = PodStatus()


class LabelSelector(Shape, frozen=True):
    match_labels: dict[str, str] = {}
    match_expressions: tuple[dict[str, Any], ...] = ()


class PodTemplate(Shape, frozen=True):
    spec: PodSpec
    metadata: Metadata = Metadata()


class DeploymentSpec(Shape, frozen=True):
    selector: LabelSelector
    template: PodTemplate
    replicas: NotNegative = 1


class Deployment(Shape, frozen=True):
    metadata: Metadata
    spec: DeploymentSpec


class ServicePort(Shape, frozen=True):
    port: Port
    name: str = ""
    protocol: Protocol = "TCP"
    target_port: Port | str | None = None
    app_protocol: str = ""


class ServiceSpec(Shape, frozen=True):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    cluster_ip: str = field(default="", name="clusterIP")
    cluster_ips: tuple[str, ...] = field(default=(), name="clusterIPs")
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    ip_family_policy: Literal["", "SingleStack", "PreferDualStack", "RequireDualStack"] = ""
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}
    external_name: str = ""
    publish_not_ready_addresses: bool = False
    traffic_distribution: Literal["", "PreferClose", "PreferSameZone", "PreferSameNode"] = ""
    internal_traffic_policy: Literal["", "Cluster", "Local"] = ""


class ServiceStatus(Shape, frozen=True):
    conditions: tuple[Condition, ...] = ()


class Service(Shape, frozen=True):
    metadata: Metadata
    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(Shape, frozen=True):
    ready: bool = True  # "a nil value should be interpreted as true" (discovery/v1)
    serving: bool | None = None
    terminating: bool = False


class TargetReference(Shape, frozen=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Endpoint(Shape, frozen=True):
    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    target_ref: TargetReference | None = None
    node_name: str = ""


class EndpointPort(Shape, frozen=True):
    name: str = ""
    protocol: Protocol = "TCP"
    port: Port | None = None


class EndpointSlice(Shape, frozen=True):
    metadata: Metadata
    address_type: Literal["IPv4", "IPv6", "FQDN"]
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


# msgspec fills in what it knows of a type when the type is first used, and threads of the store that do so at once read
# it half filled (a crash in msgspec 0.22). So the first use is here, while the module is imported.
for _each in (Pod, Deployment, Service, EndpointSlice, Namespace, Node, AnyObject):
    json.Decoder(_each)
