"""`ambit waypoint`: the Gateways it makes, what it shows of them, and on which cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.errors import CommandFailed
from cli.waypoint import manifest, view
from controller.compile.gateways import Traffic
from controller.store.interface import Key
from controller.store.manifest import check_object
from tests.cli.ambit import ambit, two_nodes
from tests.cli.api_server import kubeconfig, serving

GATEWAYS = "/apis/gateway.networking.k8s.io/v1"


def gateway(name: str = "wp", **status: Any) -> dict[str, Any]:
    made = {**manifest.gateway("shop", name, "", None)}
    made["metadata"] = {**made["metadata"], "uid": name, "generation": 2}
    return made | ({"status": status} if status else {})


def told(status: str, kind: str = "Programmed", generation: int = 2, **more: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": "Because", "observedGeneration": generation, **more}


@pytest.mark.parametrize(
    ("name", "account", "traffic", "expected"),
    [
        ("", "", None, {"name": "waypoint", "namespace": "shop"}),
        ("wp", "", Traffic.ALL, {"name": "wp", "namespace": "shop", "labels": {"istio.io/waypoint-for": "all"}}),
        (
            "",
            "cart",
            None,
            {
                "name": "cart-waypoint",
                "namespace": "shop",
                "annotations": {"ambit.io/for-service-account": "cart"},
            },
        ),
    ],
)
def test_the_gateway_that_is_asked_for(name: str, account: str, traffic: Traffic | None, expected: Any) -> None:
    made = manifest.gateway("shop", name, account, traffic)
    check_object(made)
    assert made["metadata"] == expected
    assert made["spec"] == {
        "gatewayClassName": "ambit-waypoint",
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
    }


@pytest.mark.parametrize(
    ("name", "account", "traffic", "words"),
    [
        ("none", "", None, "means no waypoint"),
        ("Wp", "", None, "'Wp'"),
        ("w" * 64, "", None, "63"),
        ("cart", "cart", None, "--name"),
        ("", "cart", Traffic.SERVICE, "--for service"),
    ],
)
def test_what_cannot_be_a_waypoint(name: str, account: str, traffic: Traffic | None, words: str) -> None:
    with pytest.raises(CommandFailed, match=words):
        manifest.gateway("shop", name, account, traffic)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, ("Unknown", "Programmed", "Pending")),
        ({"conditions": [told("True", generation=1)]}, ("Unknown", "Programmed", "Pending")),
        ({"conditions": [told("True"), told("True", "Accepted")]}, ("True", "Programmed", "Because")),
        ({"conditions": [told("True"), told("False", "Accepted")]}, ("False", "Accepted", "Because")),
    ],
)
def test_the_condition_that_tells(status: Any, expected: tuple[str, str, str]) -> None:
    found = view.condition(gateway(**status))
    assert (found.status, found.type, found.reason) == expected


def test_who_uses_a_waypoint_by_label() -> None:
    def labelled(kind: str, name: str, labels: dict[str, str], namespace: str = "shop") -> dict[str, Any]:
        spaced = {} if kind == "Namespace" else {"namespace": namespace}
        return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "labels": labels, **spaced}}

    use = {"istio.io/use-waypoint": "wp"}
    far = {**use, "istio.io/use-waypoint-namespace": "shop"}
    objects = [
        labelled("Namespace", "shop", use),
        labelled("Service", "web", use),
        labelled("Service", "till", far, "bank"),
        labelled("Service", "elsewhere", use, "bank"),
        labelled("Pod", "none", {"istio.io/use-waypoint": "none"}),
        labelled("Pod", "plain", {}),
    ]
    found = view.users(objects, {Key("Gateway", "shop", "wp")})
    assert list(map(str, found)) == ["Namespace shop", "Service shop/web", "Service bank/till"]


def test_generate_prints_a_manifest_and_asks_nobody(tmp_path: Path) -> None:
    done = ambit("waypoint", "generate", "--service-account", "cart", "-n", "shop", home=tmp_path)
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout) == manifest.gateway("shop", "", "cart", None)


def test_list_and_status_on_a_cluster(tmp_path: Path) -> None:
    cluster = two_nodes()
    other = gateway("ingress")
    other["spec"]["gatewayClassName"] = "somebody-elses"
    cluster.objects[f"{GATEWAYS}/gatewayclasses"] = []
    cluster.objects[f"{GATEWAYS}/namespaces/shop/gateways"] = [
        gateway("ready", conditions=[told("True"), told("True", "Accepted")]),
        gateway("waits", conditions=[told("False", message="no pod of the waypoint is ready")]),
        other,
    ]
    with serving(cluster) as found:
        config = str(kubeconfig(found, tmp_path / "config"))
        listed = ambit("waypoint", "list", "-n", "shop", home=tmp_path, KUBECONFIG=config)
        status = ambit("waypoint", "status", "-n", "shop", "--no-wait", "-o", "json", home=tmp_path, KUBECONFIG=config)
    assert listed.returncode == 0, listed.stderr
    assert [line.split() for line in listed.stdout.splitlines()[1:]] == [
        ["ready", "default", "service", "True", "-"],
        ["waits", "default", "service", "False", "-"],
    ]
    assert [(each["name"], each["status"]) for each in json.loads(status.stdout)] == [
        ("ready", "True"),
        ("waits", "False"),
    ]
    assert status.returncode == 1
