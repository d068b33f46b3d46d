"""A pod behind a waypoint: who gets in at port 15008, whose word counts, and what is told of it."""

from __future__ import annotations

import pytest

from mesh.model.address import Ip, SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.policy import Action, Authorization, Clause, Match, PolicyScope, Rule, ServiceAccountMatch
from mesh.model.workload import GatewayAddress, PortMapping, Service, WaypointBinding, Workload, WorkloadUid
from tests.worker.hbone_client import HboneClient, tls_socket
from tests.worker.node import Node, echo, serving
from tests.worker.node import Worker as WorkerProcess

pytestmark = pytest.mark.root

PORT = 8080
WAYPOINT = SpiffeId("cluster.local", "shop", "guard")
CLIENT = SpiffeId("cluster.local", "far-away", "alice")
SAYS = (("x-ambit-source-identity", str(CLIENT)), ("forwarded", 'for="10.9.9.9:4242"'))


@pytest.fixture
def server(node: Node) -> WorkerProcess:
    """Pod b, all of whose connections are a waypoint's, which runs as `guard`."""
    ports = (PortMapping(15008, 15008),)
    guard = Service("guard", "shop", "guard.shop.svc.cluster.local", ports=ports)
    pod = Workload(
        WorkloadUid("Kubernetes//Pod/shop/guard-1"),
        "guard-1",
        "shop",
        (Ip("10.8.8.8"),),
        service_account="guard",
        services={guard.key: ports},
    )
    bound = node.b.workload(waypoint=GatewayAddress(guard.key, 15008), waypoint_binding=WaypointBinding.ALL)
    worker = node.worker(node.b)
    worker.update(bound, pod, services=(guard,))
    worker.describe()
    serving(node.b.listen(PORT), echo)
    return worker


def tunnel(node: Node, identity: SpiffeId) -> HboneClient:
    return HboneClient(tls_socket(node.a, node.b, node.certificate(identity)))


def test_who_goes_round_is_refused_and_told_why(node: Node, server: WorkerProcess) -> None:
    client = tunnel(node, node.a.identity)
    stream = client.connect(f"{node.b.ip4}:{PORT}", *SAYS)
    assert client.status(stream) == 401
    reason = (
        f"is reached only through its waypoint shop/guard.shop.svc.cluster.local, not by a tunnel of {node.a.identity}"
    )
    assert reason in client.headers(stream)["x-ambit-refusal"]
    record = server.ended()
    assert (record.flags, record.source_identity) == ("DENY", node.a.identity)
    assert reason in record.error


def test_the_waypoints_word_for_its_client_counts(node: Node, server: WorkerProcess) -> None:
    client = tunnel(node, WAYPOINT)
    stream = client.connect(f"{node.b.ip4}:{PORT}", *SAYS)
    assert client.status(stream) == 200
    client.send(stream, b"x")
    assert client.received(stream, 1) == b"x"
    (record,) = server.wait(lambda: server.opened, "the connection")
    assert record.source_identity == CLIENT
    assert record.source == SocketAddress(Ip("10.9.9.9"), 4242)


def test_policy_sees_the_client_and_cuts_it(node: Node, server: WorkerProcess) -> None:
    client = tunnel(node, WAYPOINT)
    alice, guard = (client.connect(f"{node.b.ip4}:{PORT}", *headers) for headers in (SAYS, ()))
    for stream in (alice, guard):
        assert client.status(stream) == 200
    match = Match(service_accounts=(ServiceAccountMatch(CLIENT.namespace, CLIENT.service_account),))
    policy = Authorization("p", "shop", PolicyScope.NAMESPACE, Action.DENY, (Rule((Clause((match,)),)),))
    server.update(policies=(policy,))
    assert client.wait_for_reset(alice)
    assert server.ended(lambda record: record.flags == "DENY").source_identity == CLIENT
    client.send(guard, b"x")
    assert client.received(guard, 1) == b"x"
    refused = client.connect(f"{node.b.ip4}:{PORT}", *SAYS)
    assert client.status(refused) == 401
    assert "policy shop/p denies" in client.headers(refused)["x-ambit-refusal"]
