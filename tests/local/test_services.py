"""Service addresses, endpoints, packet rules."""

from __future__ import annotations

from typing import Any

from deploy.local.addresses import Pair
from deploy.local.controllers import endpoint_slices, service_addresses
from deploy.local.controllers.actions import Action, Apply, Delete, Merge, SetStatus
from deploy.local.node import packet_rules
from deploy.local.service_map import VirtualPort, virtual_ports
from mesh.model.address import SocketAddress, canonical
from tests.local import objects

NODE = Pair(canonical("172.18.0.11"), canonical("fd00:172:18::b"))


def allocate(*services: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services' specs after allocation, by name, or the message of the condition that tells why there is none."""
    found: dict[str, dict[str, Any]] = {}
    for action in service_addresses.reconcile(objects.seen(*services), objects.NOW):
        if isinstance(action, Merge):
            found[action.key.name] = dict(action.fields["spec"])
        elif isinstance(action, SetStatus):
            found[action.key.name] = {"problem": action.status["conditions"][0]["message"]}
    return found


def test_families_by_policy() -> None:
    found = allocate(
        objects.service("single"),
        objects.service("dual", ipFamilyPolicy="PreferDualStack"),
        objects.service("six", ipFamilies=["IPv6"]),
        objects.service("six-first", ipFamilies=["IPv6", "IPv4"], ipFamilyPolicy="RequireDualStack"),
        objects.service("headless", clusterIP="None"),
    )
    assert [":" in each for each in found["single"]["clusterIPs"]] == [False]
    assert [":" in each for each in found["dual"]["clusterIPs"]] == [False, True]
    assert [":" in each for each in found["six"]["clusterIPs"]] == [True]
    assert [":" in each for each in found["six-first"]["clusterIPs"]] == [True, False]
    assert found["headless"]["clusterIPs"] == ["None"]
    given = [each for spec in found.values() for each in spec["clusterIPs"]]
    assert len(given) == len(set(given))
    assert found["dual"]["clusterIP"] == found["dual"]["clusterIPs"][0]


def test_a_second_family_keeps_the_first_address() -> None:
    one = objects.service("web", clusterIP="10.96.7.7", clusterIPs=["10.96.7.7"], ipFamilyPolicy="PreferDualStack")
    found = allocate(one)["web"]["clusterIPs"]
    assert found[0] == "10.96.7.7"
    assert ":" in found[1]


def test_an_address_that_is_asked_for() -> None:
    assert allocate(objects.service("web", clusterIP="10.96.1.1"))["web"]["clusterIPs"] == ["10.96.1.1"]
    assert "10.97.1.1" in allocate(objects.service("web", clusterIP="10.97.1.1"))["web"]["problem"]
    assert "resolver" in allocate(objects.service("web", clusterIP="10.96.0.10"))["web"]["problem"]


def test_of_two_that_ask_for_one_address_the_older_keeps_it() -> None:
    old, new = objects.service("old", clusterIP="10.96.1.1"), objects.service("new", clusterIP="10.96.1.1")
    new["metadata"]["creationTimestamp"] = "2027-01-01T00:00:00Z"
    found = allocate(new, old)
    assert found["old"]["clusterIPs"] == ["10.96.1.1"]
    assert found["new"]["problem"] == "spec.clusterIP 10.96.1.1 is taken by Service shop/old"


def slices(*found: dict[str, Any]) -> list[Action]:
    return list(endpoint_slices.reconcile(objects.seen(*found)))


def applied(*found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each.object["addressType"]: dict(each.object) for each in slices(*found) if isinstance(each, Apply)}


def test_endpoints_follow_readiness() -> None:
    web = objects.service(ipFamilyPolicy="RequireDualStack")
    found = applied(web, objects.pod("web-1"), objects.pod("web-2", ready=False, ips=("10.244.1.3",)))
    assert [each["addresses"] for each in found["IPv6"]["endpoints"]] == [["fd00::2"]]
    by_address = {each["addresses"][0]: each["conditions"]["ready"] for each in found["IPv4"]["endpoints"]}
    assert by_address == {"10.244.1.2": True, "10.244.1.3": False}
    assert found["IPv4"]["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    assert found["IPv4"]["metadata"]["labels"]["kubernetes.io/service-name"] == "web"


def test_not_ready_addresses_can_be_wanted() -> None:
    found = applied(objects.service(publishNotReadyAddresses=True), objects.pod("web-1", ready=False))
    assert found["IPv4"]["endpoints"][0]["conditions"]["ready"]


def test_nothing_to_do_when_slices_are_right_and_they_go_with_their_service() -> None:
    web, pod = objects.service(), objects.pod("web-1")
    made = applied(web, pod)["IPv4"]
    assert slices(web, pod, made) == []
    assert [type(each) for each in slices(pod, made)] == [Delete]
    by_hand = {**made, "metadata": {**made["metadata"], "labels": {"kubernetes.io/service-name": "web"}}}
    assert slices(pod, by_hand) == []  # not ours to delete


def test_a_named_port_that_no_container_has() -> None:
    web = objects.service(ports=[{"port": 80, "targetPort": "no-such-name"}])
    assert applied(web, objects.pod("web-1"))["IPv4"]["ports"] == []


def test_hostnames_of_a_headless_service() -> None:
    headless = objects.service(clusterIP="None")
    found = applied(headless, objects.pod("web-0", hostname="web-0", subdomain="web"))
    assert found["IPv4"]["endpoints"][0]["hostname"] == "web-0"


def test_services_as_a_node_sees_them() -> None:
    web = objects.service(clusterIPs=["10.96.0.20", "fd00:10:96::20"], ipFamilyPolicy="RequireDualStack")
    made = applied(web, objects.pod("web-1"), objects.pod("web-2", ready=False, ips=("10.244.1.3",)))
    found = virtual_ports([web], made.values())
    assert found == {
        VirtualPort("tcp", canonical("10.96.0.20"), 80): (SocketAddress(canonical("10.244.1.2"), 8080),),
        VirtualPort("tcp", canonical("fd00:10:96::20"), 80): (SocketAddress(canonical("fd00::2"), 8080),),
    }


def test_rules_do_not_depend_on_the_order_of_objects() -> None:
    """So that the kernel is asked only when something has changed."""
    first = VirtualPort("tcp", canonical("10.96.0.20"), 80)
    second = VirtualPort("udp", canonical("10.96.0.21"), 53)
    endpoints = (SocketAddress(canonical("10.244.1.2"), 8080), SocketAddress(canonical("10.244.1.3"), 8080))
    one = packet_rules.render({first: endpoints, second: endpoints[:1]}, NODE)
    assert one == packet_rules.render({second: endpoints[:1], first: endpoints}, NODE)
