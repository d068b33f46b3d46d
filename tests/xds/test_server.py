"""What a control plane sends on one stream: only differences, one response of a type at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest
from mesh.wire.services import ADDRESS_TYPE, AUTHORIZATION_TYPE
from mesh.xds import server
from mesh.xds.resources import address_resource
from mesh.xds.server import ServerSession, SessionRefused
from tests.xds.values import WEB, ack, collections, deny, names, put, service, workload

POD, OTHER = workload("web-1", "10.0.0.1"), workload("web-2", "10.0.0.2")


def everything(type_url: str = ADDRESS_TYPE, **held: str) -> DeltaDiscoveryRequest:
    return DeltaDiscoveryRequest(type_url=type_url, initial_resource_versions=held)


def on_demand(*keys: str) -> DeltaDiscoveryRequest:
    return DeltaDiscoveryRequest(
        type_url=ADDRESS_TYPE, resource_names_subscribe=["*", *keys], resource_names_unsubscribe=["*"]
    )


def test_a_wildcard_client_gets_all_then_differences_only() -> None:
    published = collections()
    put(published[ADDRESS_TYPE], POD, OTHER)
    session = ServerSession(published)
    session.requested(everything())
    first = session.next_response("7")
    assert first is not None
    assert names(first) == {POD.uid, OTHER.uid}
    assert (first.type_url, first.system_version_info) == (ADDRESS_TYPE, "7")
    session.requested(ack(first))
    assert session.next_response() is None
    changed = put(published[ADDRESS_TYPE], workload("web-1", "10.0.0.9"), OTHER)
    assert changed == {POD.uid}, "an equal resource is no change"
    session.changed(ADDRESS_TYPE, changed)
    second = session.next_response()
    assert second is not None
    assert names(second) == {POD.uid}
    assert second.nonce != first.nonce
    session.requested(ack(second))
    session.changed(ADDRESS_TYPE, published[ADDRESS_TYPE].apply((), (POD.uid,)))
    third = session.next_response()
    assert third is not None
    assert list(third.removed_resources) == [POD.uid]


def test_an_empty_first_answer_is_sent() -> None:
    session = ServerSession(collections())
    session.requested(everything(AUTHORIZATION_TYPE))
    first = session.next_response()
    assert first is not None
    assert not first.resources
    session.requested(ack(first))
    assert session.next_response() is None


def test_nothing_is_sent_to_who_did_not_ask() -> None:
    published = collections()
    session = ServerSession(published)
    session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], POD))
    session.requested(DeltaDiscoveryRequest(type_url="type.googleapis.com/x.Y"))
    assert session.next_response() is None


def test_the_next_response_waits_for_the_ack_and_changes_coalesce() -> None:
    published = collections()
    session = ServerSession(published)
    session.requested(everything())
    first = session.next_response()
    for number in range(100):
        session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], workload("web-1", f"10.0.0.{number}")))
        assert session.next_response() is None
    assert len(session.subscriptions[ADDRESS_TYPE].examine) == 1
    session.requested(DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, response_nonce="stale"))
    assert session.next_response() is None
    session.requested(ack(first))
    second = session.next_response()
    assert second is not None
    assert [resource.version for resource in second.resources] == [
        address_resource(workload("web-1", "10.0.0.99")).version
    ]


def test_types_do_not_wait_for_each_other_and_policies_go_first() -> None:
    published = collections()
    put(published[ADDRESS_TYPE], POD)
    put(published[AUTHORIZATION_TYPE], deny())
    session = ServerSession(published)
    session.requested(everything())
    session.requested(everything(AUTHORIZATION_TYPE))
    sent = [session.next_response(), session.next_response()]
    assert [message.type_url for message in sent if message] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]


def test_what_came_and_went_meanwhile_is_not_mentioned() -> None:
    published = collections()
    session = ServerSession(published)
    session.requested(everything())
    first = session.next_response()
    session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], POD))
    session.changed(ADDRESS_TYPE, published[ADDRESS_TYPE].apply((), (POD.uid,)))
    session.requested(ack(first))
    assert session.next_response() is None


def test_after_a_reconnect_only_what_differs_is_sent() -> None:
    published = collections()
    put(published[ADDRESS_TYPE], POD, OTHER)
    session = ServerSession(published)
    held = {POD.uid: address_resource(POD).version, OTHER.uid: "old", "gone": "1"}
    session.requested(everything(**held))
    first = session.next_response()
    assert first is not None
    assert names(first) == {OTHER.uid}
    assert list(first.removed_resources) == ["gone"]


def test_a_nack_is_remembered_and_the_same_version_is_not_sent_again() -> None:
    published = collections()
    put(published[ADDRESS_TYPE], POD)
    session = ServerSession(published)
    session.requested(everything())
    refused = ack(session.next_response("1"))
    refused.error_detail.message = "web-1: node: too far away"
    session.requested(refused)
    subscription = session.subscriptions[ADDRESS_TYPE]
    assert (subscription.rejection, subscription.acknowledged) == ("web-1: node: too far away", "")
    assert session.next_response("1") is None
    session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], workload("web-1", "10.0.0.9")))
    mended = session.next_response("2")
    assert names(mended) == {POD.uid}
    session.requested(ack(mended))
    assert (subscription.rejection, subscription.acknowledged) == ("", "2")


def test_on_demand_answers_names_and_aliases() -> None:
    published = collections()
    put(published[ADDRESS_TYPE], POD, OTHER)
    session = ServerSession(published)
    session.requested(on_demand())
    empty = session.next_response()
    assert names(empty) == set()
    session.requested(ack(empty))
    session.requested(DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, resource_names_subscribe=["/10.0.0.2", "/10.9.9.9"]))
    answer = session.next_response()
    assert answer is not None
    assert names(answer) == {OTHER.uid}
    assert list(answer.resources[0].aliases) == ["/10.0.0.2"]
    assert list(answer.removed_resources) == ["/10.9.9.9"], "there is no such thing: the client need not wait"
    session.requested(ack(answer))
    session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], workload("web-1", "10.0.0.8")))
    assert session.next_response() is None, "nobody asked for it"
    session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], workload("late", "10.9.9.9")))
    assert names(session.next_response()) == {workload("late").uid}


def test_on_demand_a_service_comes_with_its_pods_and_follows_them() -> None:
    published = collections()
    put(published[ADDRESS_TYPE], service(), workload("web-1", "10.0.0.1", "", WEB), OTHER)
    session = ServerSession(published)
    session.requested(on_demand("/10.96.0.1"))
    first = session.next_response()
    assert names(first) == {WEB, POD.uid}
    session.requested(ack(first))
    session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], workload("web-3", "10.0.0.3", "", WEB)))
    second = session.next_response()
    assert names(second) == {workload("web-3").uid}
    session.requested(ack(second))
    session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], workload("web-3", "10.0.0.3")))
    third = session.next_response()
    assert third is not None
    assert list(third.removed_resources) == [workload("web-3").uid], "it has left the service"


def test_on_demand_a_client_gets_the_pods_of_its_own_node() -> None:
    published = collections()
    put(published[ADDRESS_TYPE], workload("here", "10.0.0.1", "node-1"), workload("there", "10.0.0.2", "node-2"))
    session = ServerSession(published, node="node-1")
    session.requested(on_demand())
    assert names(session.next_response()) == {workload("here").uid}


def test_on_demand_after_a_reconnect_what_is_claimed_is_wanted() -> None:
    published = collections()
    put(published[ADDRESS_TYPE], POD, OTHER)
    session = ServerSession(published)
    request = on_demand()
    request.initial_resource_versions[POD.uid] = "old"
    request.initial_resource_versions["/10.7.7.7"] = ""  # still waited for
    session.requested(request)
    first = session.next_response()
    assert first is not None
    assert names(first) == {POD.uid}
    assert list(first.removed_resources) == ["/10.7.7.7"]


def test_asking_again_sends_again_and_giving_up_stops() -> None:
    published = collections()
    put(published[ADDRESS_TYPE], POD)
    session = ServerSession(published)
    session.requested(on_demand(POD.uid))
    first = session.next_response()
    session.requested(ack(first))
    again = DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, resource_names_subscribe=[POD.uid])
    session.requested(again)
    second = session.next_response()
    assert names(second) == {POD.uid}
    session.requested(ack(second))
    session.requested(DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, resource_names_unsubscribe=[POD.uid]))
    session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], workload("web-1", "10.0.0.9")))
    assert session.next_response() is None


def test_a_large_mesh_comes_in_parts_one_ack_each() -> None:
    published = collections()
    pods = [workload(f"web-{number}", f"10.0.0.{number}") for number in range(100)]
    put(published[ADDRESS_TYPE], *pods)
    session = ServerSession(published, max_bytes=1000)
    session.requested(everything())
    seen: set[str] = set()
    while (part := session.next_response()) is not None:
        assert part.ByteSize() < 1500
        assert not seen & names(part)
        seen |= names(part)
        assert session.next_response() is None
        session.requested(ack(part))
    assert seen == {pod.uid for pod in pods}


def test_too_many_names_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_NAMES", 2)
    session = ServerSession(collections())
    with pytest.raises(SessionRefused, match="more than 2 resources"):
        session.requested(on_demand("a", "b", "c"))


def test_a_policy_goes_once_no_workload_that_the_client_has_names_it() -> None:
    """Otherwise its workloads would let nobody in meanwhile."""
    published = collections()
    policy = deny("secret")
    put(published[AUTHORIZATION_TYPE], policy)
    put(published[ADDRESS_TYPE], replace(POD, authorization_policies=(policy.key,)))
    session = ServerSession(published)
    for type_url in (AUTHORIZATION_TYPE, ADDRESS_TYPE):
        session.requested(everything(type_url))
        first = session.next_response()
        assert first is not None
        session.requested(ack(first))

    session.changed(AUTHORIZATION_TYPE, published[AUTHORIZATION_TYPE].apply((), (policy.key,)))
    session.changed(ADDRESS_TYPE, put(published[ADDRESS_TYPE], POD))
    response = session.next_response()
    assert response is not None
    assert names(response) == {POD.uid}
    assert session.next_response() is None, "before the client has confirmed it"
    session.requested(ack(response))
    removal = session.next_response()
    assert removal is not None
    assert list(removal.removed_resources) == [policy.key]


def test_a_policy_that_nobody_names_goes_at_once() -> None:
    published = collections()
    policy = deny("secret")
    put(published[AUTHORIZATION_TYPE], policy)
    session = ServerSession(published)
    for type_url in (AUTHORIZATION_TYPE, ADDRESS_TYPE):
        session.requested(everything(type_url))
        first = session.next_response()
        assert first is not None
        session.requested(ack(first))
    session.changed(AUTHORIZATION_TYPE, published[AUTHORIZATION_TYPE].apply((), (policy.key,)))
    removal = session.next_response()
    assert removal is not None
    assert list(removal.removed_resources) == [policy.key]
