"""A Gateway that is a waypoint: what it takes, from whom, and as whom it runs. Pure.

Istio's labels and annotations (istio/api label, annotation), and one of our own: the service account it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from controller.compile.options import MeshOptions
from controller.compile.selector import selects
from controller.store.gateway_shapes import Gateway, GatewayClass, Listener
from controller.store.interface import Key
from mesh.model.ports import HBONE
from mesh.model.workload import GatewayAddress, ServiceKey

CONTROLLER = "ambit.io/waypoint-controller"  # GatewayClass spec.controllerName, and ours in the status of routes
CLASSES = ("ambit-waypoint", "istio-waypoint")
WAYPOINT_FOR = "istio.io/waypoint-for"  # label on the Gateway, else on its class
FOR_SERVICE_ACCOUNT = "ambit.io/for-service-account"  # annotation: a label cannot hold every name; one is read as well
RUNS_AS = "gateway.istio.io/service-account"  # annotation: of the waypoint's own pods
CLIENT_HEADER = "ambient.istio.io/xfcc-include-client-identity"
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"  # label on what a Gateway consists of
LISTENER, PROTOCOL = "mesh", "HBONE"
NAMESPACE_NAME = "kubernetes.io/metadata.name"  # the label that every Namespace has on Kubernetes


class Traffic(StrEnum):
    """What was dialled."""

    SERVICE = "service"
    WORKLOAD = "workload"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Waypoint:
    """`account` limits it to the workloads of a service account of its namespace; `runs_as` is its own."""

    namespace: str
    name: str
    runs_as: str
    account: str = ""
    takes: Traffic = Traffic.SERVICE
    listener: Listener | None = None
    client_header: bool = False

    @property
    def key(self) -> Key:
        return Key("Gateway", self.namespace, self.name)

    @property
    def identifier(self) -> str:
        """As mesh.model.routing has it."""
        return f"{self.namespace}/{self.name}"

    @property
    def services(self) -> bool:
        return self.takes in (Traffic.SERVICE, Traffic.ALL)

    @property
    def workloads(self) -> bool:
        return self.takes in (Traffic.WORKLOAD, Traffic.ALL)

    def admits(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether what is in a namespace with these labels may use it: the listener's allowedRoutes."""
        if self.listener is None:
            return namespace == self.namespace
        allowed = self.listener.allowed_routes.namespaces
        match allowed.from_:
            case "All":
                return True
            case "Same":
                return namespace == self.namespace
            case "Selector":
                return selects(allowed.selector, {NAMESPACE_NAME: namespace, **labels})
        return False


def is_ours(class_name: str, classes: Mapping[Key, GatewayClass]) -> bool:
    """Whose a class is, its object says; local mode need not have one."""
    found = classes.get(Key("GatewayClass", "", class_name))
    return found.spec.controller_name == CONTROLLER if found is not None else class_name in CLASSES


def read(gateway: Gateway, classes: Mapping[Key, GatewayClass]) -> Waypoint | None:
    """None when somebody else looks after it."""
    metadata, class_name = gateway.metadata, gateway.spec.gateway_class_name
    if not is_ours(class_name, classes):
        return None
    notes = metadata.annotations
    account = service_account(gateway)
    return Waypoint(
        metadata.namespace,
        metadata.name,
        runs_as=notes.get(RUNS_AS) or metadata.name,
        account=account,
        takes=Traffic.ALL if account else _takes(gateway, classes),
        listener=next((each for each in gateway.spec.listeners if not listener_problem(each)), None),
        client_header=notes.get(CLIENT_HEADER) == "true",
    )


def service_account(gateway: Gateway) -> str:
    metadata = gateway.metadata
    return metadata.annotations.get(FOR_SERVICE_ACCOUNT) or metadata.labels.get(FOR_SERVICE_ACCOUNT, "")


def waypoint_for(gateway: Gateway, classes: Mapping[Key, GatewayClass]) -> str:
    of_class = classes.get(Key("GatewayClass", "", gateway.spec.gateway_class_name))
    inherited = of_class.metadata.labels.get(WAYPOINT_FOR, "") if of_class is not None else ""
    return gateway.metadata.labels.get(WAYPOINT_FOR) or inherited or Traffic.SERVICE


def _takes(gateway: Gateway, classes: Mapping[Key, GatewayClass]) -> Traffic:
    try:
        return Traffic(waypoint_for(gateway, classes))
    except ValueError:
        return Traffic.SERVICE  # as Istio; the Gateway's condition says so


def listener_problem(listener: Listener) -> str:
    """ "" when it is one that a waypoint can have."""
    if listener.protocol != PROTOCOL:
        return f"a waypoint's listener has protocol {PROTOCOL}, not {listener.protocol}"
    if listener.port != HBONE:
        return f"a waypoint listens on port {HBONE}, not on {listener.port}"
    if listener.name != LISTENER:
        return f"a waypoint's listener is named {LISTENER}, not {listener.name}"
    return ""


def address(gateway: Key, options: MeshOptions) -> GatewayAddress:
    """Where the waypoint of a Gateway is, whether it is there or not."""
    host = f"{gateway.name}.{gateway.namespace}.svc.{options.cluster_domain}"
    return GatewayAddress(ServiceKey(f"{gateway.namespace}/{host}"), HBONE)
