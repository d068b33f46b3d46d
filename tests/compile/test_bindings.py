"""Which waypoint a Service and a pod pass, and what is said about it."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.model.routing import Gateway
from mesh.model.workload import GatewayAddress, ServiceKey, WaypointBinding, WaypointFailure
from tests.compile.gateway_objects import gateway, gateway_class, policy
from tests.compile.objects import Mesh, Object, endpoint_slice, namespace, pod, service, to_pod

USE, ELSEWHERE = "istio.io/use-waypoint", "istio.io/use-waypoint-namespace"
BOUND = "istio.io/WaypointBound"
GATE = GatewayAddress(ServiceKey("shop/gate.shop.svc.cluster.local"), 15008)
GATEWAY_POD: Object = {"labels": {"gateway.networking.k8s.io/gateway-name": "gate"}}


def using(name: str, **more: str) -> Object:
    return {"labels": {USE: name, **more}}


def shop(*more: Object, pod_labels: Any = None, labels: Any = None, of_namespace: Any = None) -> Mesh:
    return Mesh(
        namespace("shop", of_namespace),
        pod("web-1", "10.1.0.1", labels=pod_labels or {}),
        service("web", metadata={"labels": labels or {}}),
        endpoint_slice("web-abc", "web", [to_pod("web-1")]),
        *more,
    )


@pytest.mark.parametrize(
    ("takes", "by", "of_service", "of_pod"),
    [
        ("", "namespace", True, WaypointBinding.NONE),  # for services
        ("service", "namespace", True, WaypointBinding.NONE),
        ("workload", "namespace", False, WaypointBinding.WORKLOAD),
        ("all", "namespace", True, WaypointBinding.ALL),
        ("none", "namespace", False, WaypointBinding.NONE),
        ("service", "object", True, WaypointBinding.NONE),
        ("workload", "object", False, WaypointBinding.WORKLOAD),
        ("all", "object", True, WaypointBinding.ALL),
    ],
)
def test_a_waypoint_takes_what_it_is_for(takes: str, by: str, of_service: bool, of_pod: WaypointBinding) -> None:
    labels = {USE: "gate"}
    own = {} if by == "namespace" else {"labels": labels, "pod_labels": labels}
    mesh = shop(gateway(waypoint_for=takes), of_namespace=labels if by == "namespace" else {}, **own)
    assert mesh.service().waypoint == (GATE if of_service else None)
    assert mesh.pod().waypoint_binding is of_pod
    assert mesh.pod().waypoint == (None if of_pod is WaypointBinding.NONE else GATE)
    assert (f"service//shop/gate//{mesh.service().key}" in mesh.routing) == of_service


def test_the_objects_label_is_before_the_account_and_that_before_the_namespace() -> None:
    gateways = (
        gateway("of-ns", waypoint_for="all"),
        gateway("of-account", account="web"),
        gateway("own", waypoint_for="all"),
    )
    mesh = shop(*gateways, of_namespace={USE: "of-ns"})
    assert str(mesh.service().waypoint.destination).startswith("shop/of-account.")
    mesh.apply(service("web", metadata=using("own")))
    assert str(mesh.service().waypoint.destination).startswith("shop/own.")
    assert str(mesh.pod().waypoint.destination).startswith("shop/of-account.")  # type: ignore[union-attr]
    mesh.apply(service("web", metadata=using("none")), pod("web-1", "10.1.0.1", **using("none")))
    assert mesh.service().waypoint is None
    assert mesh.pod().waypoint is None
    mesh.apply(service("web"), pod("web-1", "10.1.0.1"))
    mesh.delete(gateways[1])
    assert str(mesh.service().waypoint.destination).startswith("shop/of-ns.")
    assert str(mesh.pod().waypoint.destination).startswith("shop/of-ns.")  # type: ignore[union-attr]


def test_a_waypoint_of_an_account_takes_its_services_and_pods_and_offers_only_these() -> None:
    mesh = shop(gateway(account="web"))
    assert mesh.service().waypoint == mesh.pod().waypoint == GATE
    assert mesh.pod().waypoint_binding is WaypointBinding.ALL
    assert mesh.routing["gateway//shop/gate"].value == Gateway("shop/gate", (), "web", True, True)


def test_a_service_of_several_accounts_is_bound_by_its_endpoints() -> None:
    api, two = gateway("api-gate", account="api"), pod("api-1", "10.1.0.2", account="api")
    both = endpoint_slice("web-abc", "web", [to_pod("web-1"), to_pod("api-1", "10.1.0.2")])
    mesh = shop(gateway(account="web"), api, two, both)
    assert mesh.service().waypoint is None
    assert mesh.pod("api-1").waypoint_binding is WaypointBinding.ALL
    assert {key for key in mesh.routing if key.startswith("service//")} == {
        f"service//shop/{name}//{mesh.service().key}" for name in ("gate", "api-gate")
    }
    said = mesh.conditions(service())[BOUND]
    assert said.status
    assert "shop/api-gate, shop/gate" in said.message
    mesh.delete(two)
    assert mesh.service().waypoint == GATE, "what is left is of one account"


@pytest.mark.parametrize(
    ("gateways", "reason"),
    [
        ((), "WaypointIsNotReady"),
        ((gateway(),), "WaypointIsNotReady"),
        ((gateway(class_name="istio"),), "WaypointIsNotReady"),
        ((gateway(allowed={"from": "None"}),), "AttachmentDenied"),
    ],
)
def test_what_cannot_serve_stays_bound_and_says_so(gateways: tuple[Object, ...], reason: str) -> None:
    mesh = shop(*gateways, labels={USE: "gate"}, pod_labels={USE: "gate"} if not gateways else {})
    assert mesh.service().waypoint == GATE
    assert mesh.service().waypoint_failure is WaypointFailure.CLOSED
    said = mesh.conditions(service())[BOUND]
    assert (said.status, said.reason) == (False, reason)
    assert "refused" in said.message
    if not gateways:
        assert mesh.pod().waypoint == GATE


def test_the_condition_follows_the_waypoints_pods() -> None:
    mesh = shop(gateway(), service("gate", "10.2.0.9", metadata=GATEWAY_POD), labels={USE: "gate"})
    assert not mesh.conditions(service())[BOUND].status
    assert not mesh.conditions(gateway())["Programmed"].status
    mesh.apply(pod("gate-1", "10.1.0.9", account="gate", **GATEWAY_POD))
    assert mesh.conditions(service())[BOUND].status
    assert mesh.conditions(gateway())["Programmed"].status
    wanted = mesh.compiler.wanted_status(key_of_gate())
    assert wanted.addresses == (("IPAddress", "10.2.0.9"), ("Hostname", "gate.shop.svc.cluster.local"))
    mesh.apply(pod("gate-1", "10.1.0.9", account="gate", ready=False, **GATEWAY_POD))
    assert mesh.conditions(service())[BOUND].reason == "WaypointIsNotReady"
    assert mesh.compiler.wanted_status(key_of_gate()).addresses is None, "what was announced stays"


def key_of_gate() -> Any:
    from controller.store.kinds import key_of

    return key_of(gateway())


def test_a_waypoint_passes_no_waypoint() -> None:
    mesh = shop(gateway(waypoint_for="all"), of_namespace={USE: "gate"})
    mesh.apply(pod("gate-1", "10.1.0.9", account="gate", **GATEWAY_POD), service("gate", metadata=GATEWAY_POD))
    assert mesh.pod("gate-1").waypoint is None
    assert mesh.service("gate").waypoint is None


@pytest.mark.parametrize(
    ("allowed", "labels", "admitted"),
    [
        ({"from": "Same"}, {}, False),
        ({"from": "All"}, {}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}, {"team": "a"}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}, {"team": "b"}, False),
        ({"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}, {}, True),
        (
            {"from": "Selector", "selector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}},
            {"team": "x"},
            True,
        ),
        ({"from": "Selector", "selector": {"matchExpressions": [{"key": "t", "operator": "?"}]}}, {"t": "x"}, False),
    ],
)
def test_who_may_use_it_from_another_namespace(allowed: Object, labels: Any, admitted: bool) -> None:
    use = {USE: "gate", ELSEWHERE: "edge", **labels}
    mesh = shop(gateway(namespace="edge", allowed=allowed), of_namespace=use)
    assert mesh.service().waypoint.destination == "edge/gate.edge.svc.cluster.local"
    assert (f"service//edge/gate//{mesh.service().key}" in mesh.routing) == admitted
    assert (mesh.conditions(service())[BOUND].reason == "AttachmentDenied") == (not admitted)


@pytest.mark.parametrize(
    ("listeners", "reason"),
    [
        ([{"name": "mesh", "port": 15008, "protocol": "HTTP"}], "UnsupportedProtocol"),
        ([{"name": "mesh", "port": 80, "protocol": "HBONE"}], "PortUnavailable"),
        ([{"name": "other", "port": 15008, "protocol": "HBONE"}], "Invalid"),
    ],
)
def test_a_listener_that_no_waypoint_can_have(listeners: Any, reason: str) -> None:
    wanted = shop(gateway(listeners=listeners)).compiler.wanted_status(key_of_gate())
    assert {each.type: each.reason for each in wanted.conditions} == {
        "Accepted": "ListenersNotValid", "Programmed": "Invalid",
    }  # fmt: skip
    assert wanted.listeners is not None
    assert wanted.listeners[0].conditions[0].reason == reason


def test_a_class_of_another_controller_is_left_alone() -> None:
    mesh = shop(gateway(class_name="istio-waypoint"), labels={USE: "gate"})
    assert "gateway//shop/gate" in mesh.routing
    mesh.apply(gateway_class("istio-waypoint", "istio.io/mesh-controller"))
    assert not mesh.routing
    assert not mesh.conditions(gateway())
    assert not mesh.conditions(gateway_class("istio-waypoint"))
    mesh.apply(gateway_class("istio-waypoint"))
    assert "gateway//shop/gate" in mesh.routing
    assert mesh.conditions(gateway_class("istio-waypoint"))["Accepted"].status


@pytest.mark.parametrize(("mode", "found"), [("open", WaypointFailure.OPEN), ("opne", WaypointFailure.CLOSED)])
@pytest.mark.parametrize("where", ["object", "namespace"])
def test_only_open_is_open(mode: str, found: WaypointFailure, where: str) -> None:
    notes = {"ambit.io/waypoint-failure-mode": mode}
    mesh = shop(gateway(), labels={USE: "gate"})
    own = notes if where == "object" else {}
    of_namespace = notes if where == "namespace" else {}
    mesh.apply(
        service("web", metadata={"labels": {USE: "gate"}, "annotations": own}), namespace("shop", {}, of_namespace)
    )
    assert mesh.service().waypoint_failure is found
    assert any("neither open nor closed" in sentence for sentence in mesh.sentences()) == (mode != "open")


def test_a_status_that_changes_moves_nothing() -> None:
    mesh = shop(gateway(), labels={USE: "gate"})
    again = gateway() | {"status": {"conditions": []}}
    assert mesh.apply(again).examined == (key_of_gate(),)


def test_policies_of_a_gateway_and_of_its_class_are_named_by_it() -> None:
    group = "gateway.networking.k8s.io"
    to_gateway = [{"group": group, "kind": "Gateway", "name": "gate"}]
    to_class = [{"group": group, "kind": "GatewayClass", "name": "ambit-waypoint"}]
    mesh = shop(
        gateway(),
        policy("one", targets=to_gateway),
        policy("all", "istio-system", targets=to_class),
        policy("foreign", "bank", targets=to_class),
    )
    assert mesh.routing["gateway//shop/gate"].value.policies == ("shop/one", "istio-system/all")  # type: ignore[union-attr]
    assert mesh.routing["policy//istio-system/all"].waypoints == ("shop/gate",)
    assert "policy//bank/foreign" not in mesh.routing
    assert mesh.conditions(policy("foreign", "bank"))["WaypointAccepted"].reason == "Invalid"
    mesh.delete(policy("one"))
    assert mesh.routing["gateway//shop/gate"].value.policies == ("istio-system/all",)  # type: ignore[union-attr]
    assert "policy//shop/one" not in mesh.routing


def test_policies_of_a_service_go_to_the_waypoints_that_it_passes() -> None:
    rule = {"from": [{"source": {"requestPrincipals": ["*"], "namespaces": ["shop"]}}]}
    of_web = policy(targets=[{"kind": "Service", "name": "web"}], action="DENY", rules=[rule])
    mesh = shop(of_web)
    assert mesh.conditions(of_web)["WaypointAccepted"].reason == "AncestorNotBound"
    mesh.delete(service("web"))
    said = mesh.conditions(of_web)["WaypointAccepted"]
    assert (said.reason, said.message.endswith("there is no Service shop/web")) == ("TargetNotFound", True)
    mesh.apply(service("web", selector={"app": "web"}))
    assert mesh.conditions(of_web)["WaypointAccepted"].reason == "AncestorNotBound"
    mesh.apply(gateway(account="web"))
    published = mesh.routing["policy//shop/policy"]
    assert published.waypoints == ("shop/gate",)
    (found,) = published.value.rules  # type: ignore[union-attr]
    assert found.sources[0].namespaces == ("shop",)
    assert "JSON web token" in found.error
    said = mesh.conditions(of_web)["WaypointAccepted"]
    assert (said.status, said.reason) == (False, "PartiallyInvalid")
    assert mesh.routing[f"service//shop/gate//{mesh.service().key}"].value.policies == ("shop/policy",)  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["/a{*}b", "/{**}/x/{**}", "/{*", "/a*/{*}", "*}"])
def test_a_template_that_no_waypoint_can_read_is_said_to_be_none(path: str) -> None:
    rule = {"to": [{"operation": {"paths": ["/{*}/b", path]}}]}
    of_web = policy(targets=[{"kind": "Service", "name": "web"}], rules=[rule])
    said = shop(gateway(account="web"), of_web).conditions(of_web)["WaypointAccepted"]
    assert (said.status, said.reason) == (False, "PartiallyInvalid")
    assert "spec.rules[0].to[0].operation.paths[1]" in said.message
