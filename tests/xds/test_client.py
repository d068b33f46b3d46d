"""What a ztunnel says to its control plane, and what it takes from it."""

from __future__ import annotations

from mesh.model.policy import Action, Authorization, PolicyScope, Rule
from mesh.model.update import MeshUpdate
from mesh.model.workload import Workload
from mesh.wire.generated import authorization_pb2, workload_pb2
from mesh.wire.generated.discovery_pb2 import Resource
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE
from mesh.xds.client import ClientSession, ztunnel_node
from mesh.xds.resources import address_resource, policy_resource
from tests.xds.values import WEB, deny, response, service, workload

NODE = ztunnel_node("node-1", "ztunnel-abc", "ambit-system", "10.1.0.1")
POD = workload("web-1")


def session(held: MeshUpdate | None = None) -> ClientSession:
    return ClientSession(NODE, held)


def broken_address(name: str) -> Resource:
    message = workload_pb2.Address(workload=workload_pb2.Workload(uid=name, addresses=[b"123"]))
    resource = Resource(name=name, version="9")
    resource.resource.Pack(message)
    return resource


def broken_policy(name: str, action: authorization_pb2.Action = authorization_pb2.DENY) -> Resource:
    namespace, _, own_name = name.partition("/")
    message = authorization_pb2.Authorization(
        name=own_name, namespace=namespace, action=action, scope=authorization_pb2.NAMESPACE
    )
    message.rules.add().clauses.add().matches.add().source_ips.add(address=b"123")
    resource = Resource(name=name, version="9")
    resource.resource.Pack(message)
    return resource


def test_a_stream_begins_with_everything_of_both_types() -> None:
    first, second = session().connect()
    assert (first.type_url, second.type_url) == (ADDRESS_TYPE, AUTHORIZATION_TYPE)
    for request in (first, second):
        assert not request.resource_names_subscribe
        assert not request.initial_resource_versions
        assert request.node.id == "ztunnel~10.1.0.1~ztunnel-abc.ambit-system~ambit-system.svc.cluster.local"
        assert request.node.metadata["NODE_NAME"] == "node-1"


def test_resources_become_a_change_and_an_ack() -> None:
    received = session().received(
        response(ADDRESS_TYPE, "n1", address_resource(POD).message, address_resource(service()).message)
    )
    assert received.update == MeshUpdate(workloads=(POD,), services=(service(),))
    assert (received.reply.type_url, received.reply.response_nonce) == (ADDRESS_TYPE, "n1")
    assert not received.reply.HasField("error_detail")
    assert not received.reply.HasField("node"), "only the first request of a type says who asks"


def test_removals_reach_what_they_name() -> None:
    received = session().received(response(ADDRESS_TYPE, "n1", removed=(POD.uid, WEB)))
    assert set(received.update.removed_workloads) >= {POD.uid}
    assert received.update.removed_services == (WEB,)
    received = session().received(response(AUTHORIZATION_TYPE, "n2", removed=("shop/strict",)))
    assert received.update.removed_policies == ("shop/strict",)


def test_a_resource_that_comes_and_goes_in_one_response_is_there() -> None:
    received = session().received(response(ADDRESS_TYPE, "n1", address_resource(POD).message, removed=(POD.uid,)))
    assert received.update == MeshUpdate(workloads=(POD,))


def test_a_bad_resource_is_refused_and_the_good_ones_are_taken() -> None:
    client = session()
    received = client.received(
        response(ADDRESS_TYPE, "n1", broken_address("bad"), address_resource(POD).message, broken_address("worse"))
    )
    assert received.update == MeshUpdate(workloads=(POD,))
    assert received.reply.response_nonce == "n1"
    assert received.reply.error_detail.message == (
        "bad: addresses: an address has 4 or 16 bytes, not 3; worse: addresses: an address has 4 or 16 bytes, not 3"
    )
    assert [error.name for error in received.rejected] == ["bad", "worse"]
    assert set(client.rejected) == {"bad", "worse"}
    addresses = client.connect()[0]
    assert dict(addresses.initial_resource_versions) == {POD.uid: address_resource(POD).version}


def test_the_last_good_version_stays_but_is_asked_for_again() -> None:
    client = session()
    client.received(response(ADDRESS_TYPE, "n1", address_resource(POD).message))
    received = client.received(response(ADDRESS_TYPE, "n2", broken_address(POD.uid)))
    assert received.update == MeshUpdate()
    assert dict(client.connect()[0].initial_resource_versions) == {POD.uid: ""}
    client.received(response(ADDRESS_TYPE, "n3", address_resource(POD).message))
    assert not client.rejected


def test_a_resource_of_another_type_is_refused() -> None:
    received = session().received(response(ADDRESS_TYPE, "n1", policy_resource(deny()).message))
    assert received.update == MeshUpdate()
    assert "istio.security.Authorization" in received.reply.error_detail.message


def test_a_policy_that_cannot_be_built_refuses_traffic_until_it_is_mended_or_removed() -> None:
    client = session()
    received = client.received(response(AUTHORIZATION_TYPE, "n1", broken_policy("shop/strict")))
    assert received.update.policies == (Authorization("strict", "shop", PolicyScope.NAMESPACE, Action.DENY, (Rule(),)),)
    assert received.reply.error_detail.message.startswith("shop/strict: rules[0]")
    assert dict(client.connect()[1].initial_resource_versions) == {"shop/strict": ""}
    received = client.received(response(AUTHORIZATION_TYPE, "n2", removed=("shop/strict",)))
    assert received.update.removed_policies == ("shop/strict",)
    assert not client.rejected
    assert not client.connect()[1].initial_resource_versions


def test_a_nack_tells_a_bounded_number_of_reasons() -> None:
    bad = [broken_address(f"bad-{number}") for number in range(500)]
    message = session().received(response(ADDRESS_TYPE, "n1", *bad)).reply.error_detail.message
    assert message.endswith("; and 480 more")


def test_ready_once_both_types_have_been_answered_and_ever_after() -> None:
    client = session()
    assert not client.ready
    client.received(response(ADDRESS_TYPE, "n1", address_resource(POD).message))
    assert not client.ready
    client.received(response(AUTHORIZATION_TYPE, "n2"))
    assert client.ready
    client.connect()
    assert client.ready


def test_an_unknown_type_is_acknowledged() -> None:
    client = session()
    received = client.received(response("type.googleapis.com/x.Y", "n1"))
    assert received.update == MeshUpdate()
    assert received.reply.response_nonce == "n1"
    assert not client.ready


def test_what_is_held_from_an_earlier_life_is_brought_up_to_date() -> None:
    held = MeshUpdate(workloads=(POD,), services=(service(),), policies=(deny(),))
    addresses, policies = session(held).connect()
    assert dict(addresses.initial_resource_versions) == {POD.uid: "", WEB: ""}
    assert dict(policies.initial_resource_versions) == {"shop/strict": ""}


def test_a_workload_keeps_its_fields() -> None:
    (taken,) = session().received(response(ADDRESS_TYPE, "n1", address_resource(POD).message)).update.workloads
    assert isinstance(taken, Workload)
    assert str(taken.identity) == "spiffe://cluster.local/ns/shop/sa/web"
