"""What the uninstallation removes of what the controller has written, on a real API server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from controller.compile.gateways import CLASSES, CONTROLLER
from controller.store.interface import NotFound
from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.errors import Refused
from deploy import uninstall
from tests.store import apiserver

GROUP = "gateway.networking.k8s.io"
PLACE = f"/apis/{GROUP}/v1/gatewayclasses"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if reason := apiserver.missing():
        pytest.skip(reason)
    made = apiserver.Server(tmp_path_factory.mktemp("apiserver"))
    try:
        made.start()
        await_all_paths(made.api())
        yield made.api()
    finally:
        made.close()


def await_all_paths(api: ApiServer) -> None:
    """Until then, it says 503 for a path that it does not have, since it might have it soon."""
    for _ in range(600):
        try:
            api.get(PLACE)
        except NotFound:
            return
        except Refused:
            time.sleep(0.05)
    raise AssertionError("it does not know its paths")


def cluster(api: ApiServer) -> uninstall.Cluster:
    return uninstall.Cluster(api, "ambit-system", time.monotonic() + 10)


def test_the_classes_are_those_that_the_controller_makes() -> None:
    assert set(CLASSES) == uninstall.CLASSES
    assert CONTROLLER == uninstall.CLASS_OF


def test_without_a_gateway_api_there_is_nothing_to_do(api: ApiServer) -> None:
    uninstall.remove_classes(cluster(api))


def test_only_classes_of_our_own_are_removed(api: ApiServer) -> None:
    define_classes(api)
    for name, controller in (("ambit-waypoint", CONTROLLER), ("istio-waypoint", "istio.io/mesh-controller")):
        metadata, spec = {"name": name}, {"controllerName": controller}
        api.create(PLACE, {"apiVersion": f"{GROUP}/v1", "kind": "GatewayClass", "metadata": metadata, "spec": spec})
    for _ in range(2):
        uninstall.remove_classes(cluster(api))
        assert [each["metadata"]["name"] for each in api.get(PLACE)["items"]] == ["istio-waypoint"]


def test_nobody_waits_for_the_pods_of_a_node_that_is_away() -> None:
    pods = [{"metadata": {"name": f"ambit-node-{node}"}, "spec": {"nodeName": node}} for node in ("here", "gone")]
    assert uninstall.living(pods, ["gone"]) == ["ambit-node-here"]
    assert uninstall.living([{"metadata": {"name": "nowhere-yet"}, "spec": {}}], ["gone"]) == ["nowhere-yet"]


def define_classes(api: ApiServer) -> None:
    names = {"plural": "gatewayclasses", "kind": "GatewayClass", "listKind": "GatewayClassList"}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    definition: Any = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Names below k8s.io are the community's: the annotation says that this one is for a test.
        "metadata": {
            "name": f"gatewayclasses.{GROUP}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {**names, "singular": "gatewayclass"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    for _ in range(600):
        try:
            api.get(PLACE)
        except NotFound:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the kind is not served")
