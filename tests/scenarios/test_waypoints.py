"""A waypoint per service account, as a user has it: all traffic to those pods passes it, nobody goes round it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.conftest import HERE, Mesh
from tests.scenarios.home import until

pytestmark = pytest.mark.root

SPACE = "routed"
CLIENT, STRANGER, OUTSIDE = f"{SPACE}/client", f"{SPACE}/stranger", "plain/outside"
WAYPOINT = "cart-waypoint"
MANY = 40  # requests: each of three endpoints is drawn at least once, but in one of ten million runs
IDLE_MEGABYTES = 40  # of an idle waypoint


def gateway_api(kind: str, name: str, **spec: Any) -> str:
    metadata = {"name": name, "namespace": SPACE}
    return json.dumps({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec})


def route(mesh: Mesh, service: str, *rules: Any) -> None:
    """All rules that the Service has; without one it has no route."""
    parents = [{"group": "", "kind": "Service", "name": service}]
    mesh.apply(gateway_api("HTTPRoute", "tried", parentRefs=parents, rules=list(rules)))


def marked(value: str, *backends: tuple[str, int]) -> dict[str, Any]:
    """A rule whose answers can be told: it has been through the waypoint."""
    header = {"add": [{"name": "x-way", "value": value}]}
    found: dict[str, Any] = {"filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": header}]}
    refs = [{"name": name, "port": 80, "weight": weight} for name, weight in backends]
    return {**found, "backendRefs": refs}


def authorize(mesh: Mesh, **spec: Any) -> None:
    metadata = {"name": "tried", "namespace": SPACE}
    kind = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    mesh.apply(json.dumps({**kind, "metadata": metadata, "spec": spec}))


def ask(
    mesh: Mesh, host: str, port: int = 80, path: str = "/", *more: str, by: str = CLIENT, method: str = "GET"
) -> Any:
    return mesh.client(by, "ask", host, port, method, path)


def way(mesh: Mesh, host: str, port: int = 80, path: str = "/") -> str:
    """The mark of the route that the answer came by."""
    return str(ask(mesh, host, port, path).get("headers", {}).get("x-way", ""))


def server(answer: Any) -> str:
    """The pod that has answered."""
    return str(answer.get("body", "")).partition(" ")[0]


def waypoint_log(mesh: Mesh, name: str = WAYPOINT) -> str:
    return mesh.must("local", "logs", f"deploy/{name}", "-n", SPACE)


@pytest.fixture(scope="module")
def routed(whole_mesh: Mesh) -> Iterator[Mesh]:
    """The pods, and a waypoint for the service account of some."""
    whole_mesh.apply((HERE / "waypoints.yaml").read_text(), "--wait")
    whole_mesh.must("waypoint", "apply", "--service-account", "cart", "-n", SPACE, "--wait")
    until(lambda: ask(whole_mesh, "cart")["status"] == 200, "the waypoint serves")
    yield whole_mesh
    whole_mesh.ambit("local", "delete", "namespace", SPACE)


@pytest.fixture
def mesh(routed: Mesh) -> Iterator[Mesh]:
    """Without routes and policies of the test before."""
    yield routed
    routed.end_clients()
    for kind in ("httproute", "authorizationpolicy"):
        routed.ambit("local", "delete", kind, "tried", "-n", SPACE)
    until(lambda: ask(routed, "cart").get("status") == 200, "it is as it was")


def test_an_idle_waypoint_is_small(mesh: Mesh) -> None:
    """Before any other test has given it something to do, and once it has settled."""
    (process,) = mesh.processes("-m waypoint")
    until(lambda: resident(process) <= IDLE_MEGABYTES, f"an idle waypoint has more than {IDLE_MEGABYTES} MB")


def resident(process: int) -> float:
    """Megabytes."""
    status = Path(f"/proc/{process}/status").read_text()
    megabytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
    print(f"an idle waypoint: {megabytes:.1f} MB")
    return megabytes


def test_a_route_on_its_service(mesh: Mesh) -> None:
    route(mesh, "cart", marked("cart", ("cart", 1)))
    until(lambda: way(mesh, "cart") == "cart", "the route is there")
    answer = ask(mesh, "cart")
    assert server(answer) in ("cart-1", "cart-2")
    assert f"sees {mesh.address(CLIENT)}:" in answer["body"]


@pytest.mark.parametrize("kind", ["service", "headless name", "pod address"])
def test_every_kind_of_address_passes_the_waypoint(mesh: Mesh, kind: str) -> None:
    where = {"service": ("cart", 80), "headless name": ("cart-pods", 8080)}
    host, port = where.get(kind) or (mesh.address(f"{SPACE}/cart-2"), 8080)
    path = f"/{kind.replace(' ', '-')}"
    answer = ask(mesh, host, port, path)
    assert answer["status"] == 200
    assert f"sees {mesh.address(CLIENT)}:" in answer["body"]
    until(lambda: f'path="{path}"' in waypoint_log(mesh), "the waypoint has logged the request")


def test_a_service_over_several_accounts(mesh: Mesh) -> None:
    """Each endpoint has its own account's way: the waypoint offers its own pods, the other ones are dialled."""
    servers = {server(ask(mesh, "shop")) for _ in range(MANY)}
    assert servers == {"cart-1", "cart-2", "till"}


def test_plain_text_cannot_go_round(mesh: Mesh) -> None:
    assert ask(mesh, mesh.address(f"{SPACE}/cart-1"), 8080, by=OUTSIDE)["status"] == 0
    assert ask(mesh, mesh.service_address(f"{SPACE}/cart"), by=OUTSIDE)["status"] == 0
    assert ask(mesh, mesh.address(f"{SPACE}/till"), 8080, by=OUTSIDE)["status"] == 200


def test_the_destination_knows_the_client(mesh: Mesh) -> None:
    """A policy of connections on the original client, behind the waypoint."""
    selector = {"matchLabels": {"app": "cart"}}
    principal = "cluster.local/ns/routed/sa/alice"
    authorize(mesh, selector=selector, rules=[{"from": [{"source": {"principals": [principal]}}]}])
    until(lambda: ask(mesh, "cart", by=STRANGER)["status"] != 200, "others are refused")
    assert ask(mesh, "cart")["status"] == 200


def test_requests_are_authorized_by_method_and_path(mesh: Mesh) -> None:
    targets = [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": WAYPOINT}]
    operation = {"methods": ["GET"], "paths": ["/open*"]}
    authorize(mesh, targetRefs=targets, rules=[{"to": [{"operation": operation}]}])
    until(lambda: ask(mesh, "cart", path="/closed")["status"] == 403, "what no rule allows is refused")
    assert ask(mesh, "cart", path="/open/1")["status"] == 200
    assert ask(mesh, "cart", path="/open/1", method="POST")["status"] == 403
    assert ask(mesh, "cart", path="/open/../closed")["status"] in (400, 403)
    authorize(mesh, targetRefs=targets, action="DENY", rules=[{"to": [{"operation": operation}]}])
    until(lambda: ask(mesh, "cart", path="/open")["status"] == 403, "what a rule denies is refused")
    assert ask(mesh, "cart", path="/closed")["status"] == 200


def test_split_redirect_and_rewrite(mesh: Mesh) -> None:
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "else.example", "statusCode": 301}}
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
    rewrite = {"type": "URLRewrite", "urlRewrite": {"path": path}}
    route(
        mesh,
        "cart",
        {"matches": [{"path": {"type": "PathPrefix", "value": "/away"}}], "filters": [redirect]},
        {
            "matches": [{"path": {"type": "PathPrefix", "value": "/old"}}],
            "filters": [rewrite],
            "backendRefs": [{"name": "cart", "port": 80}],
        },
        marked("split", ("cart", 1), ("till", 1)),
    )
    until(lambda: way(mesh, "cart") == "split", "the route is there")
    answer = ask(mesh, "cart", path="/away/far")
    assert (answer["status"], answer["headers"]["location"]) == (301, "http://else.example/away/far")
    assert "GET /new/page" in ask(mesh, "cart", path="/old/page")["body"]
    assert {server(ask(mesh, "cart")) for _ in range(MANY)} >= {"till"}


def test_a_route_that_changes_under_load_drops_nothing(mesh: Mesh) -> None:
    load = mesh.start(CLIENT, "asking", "cart", 80)
    for number in range(6):
        route(mesh, "cart", marked(str(number), ("cart", 1)))
        until(lambda number=number: way(mesh, "cart") == str(number), "the route has changed")  # type: ignore[misc]
    outcomes = load.finish()
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > MANY


def go_on(mesh: Mesh) -> None:
    """The load has waited as long as the waypoint was away: it shall ask more than a few times after that."""
    assert [ask(mesh, "cart")["status"] for _ in range(30)] == [200] * 30


def test_a_killed_waypoint_costs_no_request_that_may_be_repeated(mesh: Mesh) -> None:
    load = mesh.start(CLIENT, "asking", "cart", 80)
    mesh.kill(mesh.processes("-m waypoint"))
    until(lambda: ask(mesh, "cart")["status"] == 200, "the waypoint is back")
    go_on(mesh)
    outcomes = load.finish()
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > MANY


def test_a_missing_waypoint_refuses_unless_it_may_fail_open(mesh: Mesh) -> None:
    mesh.must("local", "label", "service", "till", "istio.io/use-waypoint=nowhere", "-n", SPACE)
    try:
        until(lambda: ask(mesh, "till")["status"] == 0, "nobody gets there without the waypoint")
        explained = mesh.ambit("explain", "client", "till", "-n", SPACE)
        assert explained.returncode == 1
        assert "nowhere" in explained.stdout
        service = mesh.get("service", "till", "-n", SPACE)
        open_ = {"ambit.io/waypoint-failure-mode": "open"}
        metadata = {"name": "till", "namespace": SPACE, "annotations": open_}
        metadata["labels"] = {"istio.io/use-waypoint": "nowhere"}
        spec = {"selector": service["spec"]["selector"], "ports": service["spec"]["ports"]}
        mesh.apply(json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
        until(lambda: ask(mesh, "till")["status"] == 200, "failure mode open lets through")
    finally:
        mesh.must("local", "label", "service", "till", "istio.io/use-waypoint-", "-n", SPACE)


def test_list_status_and_delete(mesh: Mesh) -> None:
    listed = [line.split() for line in mesh.must("waypoint", "list", "-n", SPACE).splitlines()]
    assert listed[1:] == [[WAYPOINT, "default", "all", "True", "cart"]]
    mesh.must("waypoint", "apply", "--name", "shared", "-n", SPACE, "--enroll-namespace", "--wait")
    assert way(mesh, "till") == ""
    until(lambda: "istio.io/use-waypoint" in str(mesh.get("namespace", SPACE)["metadata"]["labels"]), "enrolled")
    mesh.must("waypoint", "delete", "shared", "-n", SPACE, "--remove-labels")
    assert "istio.io/use-waypoint" not in mesh.get("namespace", SPACE)["metadata"]["labels"]
    until(lambda: ask(mesh, "till")["status"] == 200, "nothing is bound to what is gone")


def test_signals(mesh: Mesh) -> None:
    """SIGTERM drains: requests that are under way end well, the next ones wait for the successor."""
    load = mesh.start(CLIENT, "asking", "cart", 80)
    for process in mesh.processes("-m waypoint"):
        os.kill(process, signal.SIGTERM)
    until(lambda: ask(mesh, "cart")["status"] == 200, "another one serves")
    go_on(mesh)
    outcomes = load.finish()
    assert set(outcomes) == {"200"}
    assert outcomes["200"] > MANY
