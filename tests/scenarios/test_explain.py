"""`ambit explain` says what the wire does: each verdict is compared with a real request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.scenarios.conftest import Mesh
from tests.scenarios.home import until
from tests.scenarios.test_waypoints import SPACE, WAYPOINT, ask, authorize, marked, mesh, route, routed

__all__ = ["mesh", "routed"]  # fixtures

pytestmark = pytest.mark.root


def explain(mesh: Mesh, *words: str) -> tuple[int, Any]:
    done = mesh.ambit("explain", *words, "-n", SPACE, "-o", "json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_the_whole_path_of_a_request(mesh: Mesh) -> None:
    route(mesh, "cart", marked("cart", ("cart", 1)))
    until(lambda: ask(mesh, "cart").get("headers", {}).get("x-way") == "cart", "the route is there")
    code, found = explain(mesh, "client", "cart")
    assert (code, found["verdict"]) == (0, "allowed")
    told = json.dumps(found)
    for words in ("istio.io/dataplane-mode=ambient", "spiffe://cluster.local/ns/routed/sa/alice", WAYPOINT):
        assert words in told
    assert "route routed/tried, rule 1" in told
    servers = {step["text"].split()[0] for way in found["ways"] for step in way["steps"] if step["topic"] == "deliver"}
    assert servers == {"the"}


@pytest.mark.parametrize(("path", "allowed"), [("/open", True), ("/closed", False)])
def test_the_verdict_is_that_of_the_wire(mesh: Mesh, path: str, allowed: bool) -> None:
    targets = [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": WAYPOINT}]
    authorize(mesh, targetRefs=targets, rules=[{"to": [{"operation": {"paths": ["/open"]}}]}])
    until(lambda: ask(mesh, "cart", path="/closed")["status"] == 403, "the policy is there")
    assert (ask(mesh, "cart", path=path)["status"] == 200) == allowed
    code, found = explain(mesh, "client", "cart", "--path", path)
    assert code == (0 if allowed else 1), found["reason"]
    assert "routed/tried" in json.dumps(found)


def test_a_client_outside_cannot_go_round(mesh: Mesh) -> None:
    code, found = explain(mesh, "plain/outside", mesh.address(f"{SPACE}/cart-1") + ":8080")
    assert code == 1
    assert "waypoint" in found["reason"]


def test_who_is_not_there(mesh: Mesh) -> None:
    """Nobody can tell; that is not to be taken for a denial."""
    for words in (("nobody", "cart"), ("client", "nowhere")):
        done = mesh.ambit("explain", *words, "-n", SPACE)
        assert done.returncode == 2
        assert words[0] in done.stderr
