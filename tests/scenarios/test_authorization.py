"""Istio's AuthorizationPolicy and PeerAuthentication, as users write them, on connections between pods."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.scenarios.conftest import Mesh
from tests.scenarios.home import Home, Running, until
from tests.scenarios.programs import server

pytestmark = pytest.mark.root

FAR, CLIENT, NEAR, OUTSIDE = "meshed/far", "meshed/client", "meshed/near", "plain/outside"
ALICE = "cluster.local/ns/meshed/sa/alice"
FAR_ONLY = {"selector": {"matchLabels": {"app": "far"}}}


def manifest(kind: str, **spec: Any) -> str:
    metadata = {"name": "tried", "namespace": "meshed"}
    return json.dumps({"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": metadata, "spec": spec})


def authorize(home: Home, **spec: Any) -> None:
    home.apply(manifest("AuthorizationPolicy", **spec))


def authenticate(home: Home, **spec: Any) -> None:
    home.apply(manifest("PeerAuthentication", **spec))


def source(**fields: Any) -> Any:
    return {"from": [{"source": fields}]}


@pytest.fixture
def far(home: Home) -> Iterator[Home]:
    """A home whose pod `far` is under the policies of the test alone."""
    yield home
    authorize(home, action="DENY")
    authenticate(home, mtls={"mode": "UNSET"})
    until(lambda: works(home, OUTSIDE) and works(home, CLIENT), "the policies are gone")


def works(home: Home, client: str, port: int = server.ECHO) -> bool:
    return bool(home.client(client, "attempt", home.address(FAR), port)["result"] == "works")


def whom_it_takes(home: Home) -> set[str]:
    return {client for client in (CLIENT, NEAR, OUTSIDE) if works(home, client)}


def test_only_whom_a_policy_allows(far: Home) -> None:
    authorize(far, **FAR_ONLY, rules=[source(principals=[ALICE])])
    until(lambda: not works(far, NEAR), "others are refused")
    assert whom_it_takes(far) == {CLIENT}
    authorize(far, **FAR_ONLY)
    until(lambda: not works(far, CLIENT), "without rules nobody is allowed")
    authorize(far, **FAR_ONLY, rules=[{}])
    until(lambda: whom_it_takes(far) == {CLIENT, NEAR, OUTSIDE}, "an empty rule allows everybody")


def test_whom_a_policy_denies(far: Home) -> None:
    authorize(far, **FAR_ONLY, action="DENY", rules=[source(ipBlocks=[far.address(CLIENT)])])
    until(lambda: not works(far, CLIENT), "the address is refused")
    assert whom_it_takes(far) == {NEAR, OUTSIDE}
    authorize(far, **FAR_ONLY, action="DENY", rules=[source(namespaces=["meshed"])])
    until(lambda: not works(far, NEAR), "the namespace is refused")
    assert whom_it_takes(far) == {OUTSIDE}
    authorize(far, action="DENY", rules=[{"to": [{"operation": {"ports": [str(server.ECHO)]}}]}])
    until(lambda: not works(far, OUTSIDE), "the port is refused, to the whole namespace")
    assert far.client(CLIENT, "greeting", far.address(FAR), server.GREETING)["then"]


def test_strict_but_for_one_port(far: Home) -> None:
    authenticate(far, **FAR_ONLY, mtls={"mode": "STRICT"}, portLevelMtls={str(server.GREETING): {"mode": "PERMISSIVE"}})
    until(lambda: not works(far, OUTSIDE), "plain text is refused")
    assert whom_it_takes(far) == {CLIENT, NEAR}
    assert far.client(OUTSIDE, "greeting", far.address(FAR), server.GREETING)["then"], "the port takes it"
    authenticate(far, mtls={"mode": "DISABLE"})
    until(lambda: works(far, OUTSIDE), "plain text is taken")
    assert whom_it_takes(far) == {CLIENT, NEAR, OUTSIDE}


def until_cut(held: Running) -> None:
    until(lambda: held.ask("still here") != "still here", "the connection is cut")


def test_live_connections_that_policy_comes_to_deny_are_cut_and_no_others(far: Home) -> None:
    address = far.address(FAR)
    held = {client: far.start(client, "hold", address, server.ECHO) for client in (CLIENT, NEAR, OUTSIDE)}
    assert {client: each.ask("here") for client, each in held.items()} == dict.fromkeys(held, "here")
    authorize(far, **FAR_ONLY, action="DENY", rules=[source(serviceAccounts=["alice"])])
    until_cut(held.pop(CLIENT))
    assert {client: each.ask("here") for client, each in held.items()} == dict.fromkeys(held, "here")
    authenticate(far, **FAR_ONLY, mtls={"mode": "STRICT"})
    until_cut(held.pop(OUTSIDE))
    assert held.pop(NEAR).ask("here") == "here"


def says_why(mesh: Mesh, node: str, direction: str, reason: str) -> bool:
    """Whether the access log of a node's ztunnel has a refused connection in this direction, with the reason."""
    lines = (mesh.instance.logs / f"{node}-ztunnel.log").read_text().splitlines()
    return any("\taccess\t" in line and f'direction="{direction}"' in line and reason in line for line in lines)


def test_both_ends_log_why(mesh: Mesh) -> None:
    try:
        authorize(mesh, **FAR_ONLY, action="DENY", rules=[source(principals=[ALICE])])
        until(lambda: not works(mesh, CLIENT), "it is refused")
        reason = f"policy meshed/tried denies: rule 1 (principals [{ALICE}])"
        until(lambda: says_why(mesh, "node2", "inbound", reason), "the server's end says why")
        until(lambda: says_why(mesh, "node1", "outbound", reason), "the client's end says why")
    finally:
        authorize(mesh, action="DENY")


def test_the_status_says_what_is_not_enforced(mesh: Mesh) -> None:
    def condition() -> Any:
        found = mesh.get("authorizationpolicies", "tried", "-n", "meshed").get("status", {}).get("conditions", [{}])
        return found[0]

    try:
        authorize(mesh, **FAR_ONLY, rules=[{"to": [{"operation": {"methods": ["GET"]}}]}])
        until(lambda: condition().get("reason") == "UnsupportedValue", "the method is not for ztunnel")
        assert (condition()["type"], condition()["status"]) == ("ZtunnelAccepted", "False")
        assert condition()["message"].startswith("spec.rules[0].to[0].operation.methods: ")
        until(lambda: not works(mesh, CLIENT), "and the rule allows nobody")
    finally:
        authorize(mesh, action="DENY")
    until(lambda: condition().get("status") == "True", "nothing is wrong any more")
