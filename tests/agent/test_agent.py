"""The agent as its neighbours see it: a real process, a real control plane, a real node agent, real namespaces."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
from dataclasses import replace
from datetime import timedelta
from unittest import mock

import pytest
from cryptography import x509

from ebpf.netns import in_netns
from mesh.model import ports
from mesh.model.address import Ip
from mesh.model.policy import Action, Authorization, Clause, Match, MatchKind, PolicyScope, Rule, StringMatch
from mesh.model.update import MeshUpdate
from mesh.model.workload import NetworkAddress, PortMapping, Service
from mesh.wire.generated import workload_pb2, zds_pb2
from mesh.wire.services import ADDRESS_TYPE
from mesh.xds.resources import address_resource
from tests.agent.node import Node, TestPod, eventually, inside

pytestmark = pytest.mark.root

LISTENERS = {
    "tcp 127.0.0.1:15001",
    "tcp [::1]:15001",
    "tcp *:15006",
    "tcp *:15008",
    "tcp 127.0.0.1:15053",
    "tcp [::1]:15053",
    "udp 127.0.0.1:15053",
    "udp [::1]:15053",
}
WEB = "spiffe://cluster.local/ns/shop/sa/web"


@pytest.fixture
def web(node: Node) -> TestPod:
    pod = node.pod("web")
    node.control.publish(MeshUpdate(workloads=(pod.workload(),)))
    return pod


def test_a_pod_is_served_when_its_enrolment_is_acknowledged(node: Node, web: TestPod) -> None:
    node.start()
    hello = node.agent.accept()
    assert hello.version == 1
    eventually(lambda: "mesh" not in node.readiness()[1], "the mesh")
    assert node.readiness()[0] == 500
    assert node.get(ports.READINESS, "/healthz/live")[0] == 200  # it waits, it does not hang
    assert node.agent.add(web) == ""
    assert web.listeners() >= LISTENERS
    assert node.certificates()[WEB]["state"] == "Available"
    assert node.agent.snapshot_sent() == ""
    eventually(node.ready, "readiness")
    assert node.control.metadata["authorization"] == "Bearer the-token"
    assert node.control.metadata["clusterid"] == "Kubernetes"
    assert node.agent.remove(web) == ""
    eventually(lambda: not web.listeners() - {"tcp *:15008"}, "closing of the listeners")
    eventually(lambda: not web.listeners(), "closing of the HBONE listener")


def test_the_node_agent_may_tell_of_a_pod_again(node: Node, web: TestPod) -> None:
    node.start()
    node.agent.start_with(web)
    before = web.sockets()
    assert node.agent.add(web) == ""
    assert web.sockets() == before


def test_a_worker_that_hangs_is_told_and_replaced(node: Node, web: TestPod) -> None:
    node.start(AMBIT_WORKER_PATIENCE="3s")
    node.agent.start_with(web)
    eventually(node.ready, "readiness")
    (hanging,) = node.workers()
    os.kill(hanging, signal.SIGSTOP)
    reason = f"worker {hanging} gives no sign of life"
    eventually(lambda: reason in node.readiness()[1], "notice")
    eventually(lambda: node.ready() and node.workers() - {hanging}, "another worker")
    assert hanging not in node.workers()
    assert node.dump()["notReady"] == {}


def test_pods_that_a_new_snapshot_leaves_out_are_gone_and_kept_ones_stay(node: Node, web: TestPod) -> None:
    other = node.pod("other")
    node.control.publish(MeshUpdate(workloads=(other.workload(),)))
    node.start()
    node.agent.start_with(web, other)
    node.agent.accept()
    assert node.agent.keep(web) == ""
    assert node.agent.snapshot_sent() == ""
    assert web.listeners() >= LISTENERS
    eventually(lambda: "tcp *:15006" not in other.listeners(), "closing of the listeners")


def test_a_pod_whose_sandbox_was_made_anew_is_served_there(node: Node, web: TestPod) -> None:
    node.start()
    node.agent.start_with(web)
    anew = replace(node.pod("anew"), name=web.name)
    assert node.agent.add(anew) == ""
    assert anew.listeners() >= LISTENERS
    eventually(lambda: not web.listeners(), "closing of the old listeners")


def test_a_port_in_use_is_told_and_tried_again(node: Node, web: TestPod) -> None:
    with web.netns.open() as netns:
        squatter = in_netns(netns.fileno(), lambda: socket.create_server(("", 15008)))
    node.start()
    node.agent.accept()
    assert node.agent.add(web) == "TCP port 15008 is in use in the pod"
    assert node.agent.snapshot_sent() == ""
    assert "shop/web: TCP port 15008 is in use in the pod" in eventually(lambda: node.readiness()[1], "an answer")
    assert node.dump()["workloadState"][web.uid]["state"] == "Pending"
    assert node.dump()["notReady"]["pods"] == "shop/web: TCP port 15008 is in use in the pod"
    assert "workload_manager_pending_proxy_count 1.0" in node.metrics()
    squatter.close()
    eventually(node.ready, "readiness")
    assert web.listeners() >= LISTENERS


def test_a_namespace_without_ipv6_is_served_on_ipv4(node: Node, web: TestPod) -> None:
    inside(web.netns, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    node.start()
    node.agent.start_with(web)
    assert web.listeners() >= {one for one in LISTENERS if "127.0.0.1" in one}
    assert not [one for one in web.listeners() if "::1" in one]


@pytest.mark.parametrize(
    ("packet", "descriptors", "error"),
    [
        (b"\xff\xff\xff", 0, "not a WorkloadRequest"),
        (b"", 1, "came with 1 descriptors"),
        (b"x" * 1025, 0, "more than 1024 bytes"),
        (zds_pb2.WorkloadRequest(add=zds_pb2.AddWorkload(uid="u")).SerializeToString(), 0, "with 0 descriptors, not 1"),
        (zds_pb2.WorkloadRequest(add=zds_pb2.AddWorkload(uid="u")).SerializeToString(), 1, "without its name"),
        (zds_pb2.WorkloadRequest(keep=zds_pb2.KeepWorkload(uid="u")).SerializeToString(), 1, "with 1 descriptors"),
    ],
)
def test_a_node_agent_that_breaks_the_protocol_is_told_and_the_pods_go_on(
    node: Node, web: TestPod, packet: bytes, descriptors: int, error: str
) -> None:
    node.start()
    node.agent.start_with(web)
    with open("/dev/null") as null:
        assert error in node.agent.say(packet, *[null.fileno()] * descriptors)
    eventually(lambda: error in node.readiness()[1], "the reason in readiness")
    node.agent.accept()
    assert node.agent.keep(web) == ""
    assert node.agent.snapshot_sent() == ""
    eventually(node.ready, "readiness")
    assert web.listeners() >= LISTENERS


def test_something_that_is_no_namespace_is_refused(node: Node, web: TestPod) -> None:
    node.start()
    node.agent.accept()
    request = zds_pb2.WorkloadRequest()
    request.add.uid = "u"
    request.add.workload_info.name = "web"
    with open("/dev/null") as null:
        assert "no usable network namespace" in node.agent.say(request, null.fileno())
    assert node.agent.add(web) == ""


def test_certificates_are_asked_for_as_istio_does_and_renewed_at_half_life(node: Node, web: TestPod) -> None:
    node.control.lifetime = timedelta(seconds=4)
    node.start(SECRET_TTL="4s")
    node.agent.start_with(web)
    first = leaf(node)
    asked = node.control.asked[0]
    assert asked.metadata["ImpersonatedIdentity"] == WEB
    assert asked.validity_duration == 4
    csr = x509.load_pem_x509_csr(asked.csr.encode())
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == [WEB]
    assert list(csr.subject) == []
    eventually(lambda: leaf(node)["serialNumber"] != first["serialNumber"], "renewal")
    assert leaf(node)["validFrom"] < first["expirationTime"]


def test_a_pod_that_is_no_workload_yet_gets_its_certificate_before_it_joins(node: Node, web: TestPod) -> None:
    """As long as the CNI plugin holds it, a pod has no address, and without one it is not in the mesh."""
    held = node.pod("held")
    node.start(TRUST_DOMAIN="other.example")
    node.agent.start_with(web)
    assert node.agent.add(held) == ""
    assert node.certificates()["spiffe://other.example/ns/shop/sa/held"]["state"] == "Available"


def test_an_old_certificate_is_kept_while_the_ca_refuses_but_not_past_its_end(node: Node, web: TestPod) -> None:
    node.control.lifetime = timedelta(seconds=4)
    node.start()
    node.agent.start_with(web)
    first = leaf(node)["serialNumber"]
    node.control.refusal = "not today"
    refused = eventually(lambda: node.certificates()[WEB].get("renewalError"), "a refused renewal")
    assert "not today" in refused
    assert leaf(node)["serialNumber"] == first
    state = eventually(lambda: node.certificates()[WEB]["state"].partition("Unavailable: ")[2], "expiry")
    assert "expired" in state
    assert "not today" in state
    node.control.refusal = ""
    eventually(lambda: node.certificates()[WEB]["state"] == "Available", "a certificate")


def test_one_certificate_for_all_pods_of_an_account(node: Node, web: TestPod) -> None:
    twin = node.pod("twin")
    node.control.publish(MeshUpdate(workloads=(twin.workload(service_account="web"),)))
    node.start()
    node.agent.start_with(web, replace(twin, account="web"))
    assert set(node.certificates()) == {WEB}
    assert node.control.issued == [WEB]


def test_what_is_kept_on_disk_is_for_root_alone_and_complete(node: Node, web: TestPod) -> None:
    node.start()
    node.agent.start_with(web)
    eventually(lambda: (node.state / "certificates.msgpack").exists(), "the certificates' file")
    eventually(lambda: (node.state / "mesh.msgpack").exists(), "the mesh's file")
    assert stat.S_IMODE(node.state.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in node.state.iterdir()} == {0o600}


def test_a_restart_asks_only_for_what_differs_and_forgets_what_went_meanwhile(node: Node, web: TestPod) -> None:
    old = node.pod("old")
    node.control.publish(MeshUpdate(workloads=(old.workload(),)))
    agent = node.start()
    node.agent.start_with(web)
    eventually(lambda: (node.state / "mesh.msgpack").exists(), "the mesh's file")
    stop(node, agent)
    node.control.publish(MeshUpdate(removed_workloads=(old.workload().uid,)))
    node.start()
    eventually(lambda: [one["name"] for one in node.dump()["workloads"]] == ["web"], "the removal")


def test_an_expired_certificate_on_disk_is_not_served(node: Node, web: TestPod) -> None:
    node.control.lifetime = timedelta(seconds=3)
    agent = node.start()
    node.agent.start_with(web)
    eventually(lambda: (node.state / "certificates.msgpack").exists(), "the certificates' file")
    kept = (node.state / "certificates.msgpack").read_bytes()
    node.control.refusal = "not today"
    eventually(lambda: "expired" in node.certificates()[WEB]["state"], "expiry")
    stop(node, agent)
    (node.state / "certificates.msgpack").write_bytes(kept)
    node.start()
    node.agent.start_with(web)
    assert node.certificates()[WEB]["state"].startswith("Unavailable")


def test_a_bad_resource_is_refused_by_name_and_the_rest_is_applied(node: Node, web: TestPod) -> None:
    node.start()
    good = node.pod("good")
    bad = node.pod("bad").workload(addresses=(Ip("10.0.0.1"),))
    broken = address_resource(bad)
    broken.message.resource.value = workload_pb2.Address(
        workload=workload_pb2.Workload(uid=bad.uid, name="bad", namespace="shop", addresses=[b"123"])
    ).SerializeToString()
    node.control.publish_resources(ADDRESS_TYPE, [broken, address_resource(good.workload())])
    message = eventually(node.control.rejections, "a NACK")[0]
    assert bad.uid in message
    assert "address" in message
    names = eventually(lambda: {one["name"] for one in node.dump()["workloads"]} - {"web"}, "the good one")
    assert names == {"good"}


def test_the_control_plane_comes_back(node: Node, web: TestPod) -> None:
    node.start()
    node.agent.start_with(web)
    node.control.stop()
    eventually(lambda: "istio_xds_connection_terminations_total{" in node.metrics(), "the end of the stream")
    late = node.pod("late").workload()
    node.control.publish(MeshUpdate(workloads=(late,)))
    node.control.start()
    eventually(lambda: "late" in {one["name"] for one in node.dump()["workloads"]}, "the workload")


def test_the_dump_has_istios_shape_and_no_secret(node: Node, web: TestPod) -> None:
    hostname = "web.shop.svc.cluster.local"
    service = Service(
        "web",
        "shop",
        hostname,
        addresses=(NetworkAddress("", Ip("10.96.0.9")),),
        ports=(PortMapping(80, 8080),),
    )
    workload = web.workload(services={service.key: (PortMapping(80, 8080),)})
    principals = (StringMatch(MatchKind.EXACT, "cluster.local/ns/shop/sa/web"),)
    rules = (Rule((Clause((Match(principals=principals, not_destination_ports=(9999,)),)),)),)
    policy = Authorization("allow", "shop", PolicyScope.NAMESPACE, Action.ALLOW, rules)
    node.control.publish(MeshUpdate(workloads=(workload,), services=(service,), policies=(policy,)))
    node.start()
    node.agent.start_with(web)
    dump = node.dump()
    (shown,) = dump["workloads"]
    assert shown["uid"] == "Kubernetes//Pod/shop/web"
    assert shown["workloadIps"] == [web.ip4, web.ip6]
    assert shown["protocol"] == "HBONE"
    assert shown["status"] == "Healthy"
    assert shown["services"] == {f"shop/{hostname}": {"80": 8080}}
    (shown,) = dump["services"]
    assert shown["vips"] == ["/10.96.0.9"]
    assert shown["ports"] == {"80": 8080}
    assert shown["endpoints"] == {
        workload.uid: {"workloadUid": workload.uid, "port": {"80": 8080}, "status": "Healthy"}
    }
    (shown,) = dump["policies"]
    assert (shown["scope"], shown["action"]) == ("Namespace", "Allow")
    assert shown["rules"] == [
        [[{"principals": [{"Exact": "cluster.local/ns/shop/sa/web"}], "notDestinationPorts": [9999]}]]
    ]
    (shown,) = dump["certificates"]
    assert (shown["identity"], shown["state"]) == (WEB, "Available")
    assert {"pem", "serialNumber", "validFrom", "expirationTime"} == set(shown["certChain"][0])
    assert shown["rootCerts"]
    assert dump["workloadState"][web.uid]["state"] == "Up"
    assert dump["workloadState"][web.uid]["info"] == {"name": "web", "namespace": "shop", "serviceAccount": "web"}
    assert set(dump) >= {"stagedServices", "staticConfig", "version", "config"}
    everything = json.dumps(dump) + node.log
    assert "PRIVATE KEY" not in everything
    assert "the-token" not in everything


def test_people_can_change_log_levels_and_end_it(node: Node, web: TestPod) -> None:
    agent = node.start()
    node.agent.start_with(web)
    assert node.get(ports.ADMIN, "/")[0] == 200
    assert node.get(ports.ADMIN, "/logging?level=loud", "POST") == (400, mock.ANY)
    assert node.get(ports.ADMIN, "/logging?level=debug,access=off", "POST")[0] == 200
    assert node.get(ports.ADMIN, "/logging")[1].strip() == "debug,access=off"
    assert node.get(ports.ADMIN, "/quitquitquit")[0] == 405
    assert node.get(ports.ADMIN, "/quitquitquit", "POST")[0] == 200
    assert agent.wait(timeout=15) == 0
    assert not node.workers()
    assert not web.listeners()


def test_metrics_say_what_runs(node: Node, web: TestPod) -> None:
    node.start()
    node.agent.start_with(web)
    text = node.metrics()
    assert "workload_manager_active_proxy_count 1.0" in text
    assert "workload_manager_proxies_started_total 1.0" in text
    assert re.search(r'istio_build\{component="ztunnel",tag="[^"]+"\} 1.0', text)
    assert f'ambit_certificate_expiry_timestamp_seconds{{identity="{WEB}"}}' in text
    assert 'istio_xds_message_total{url="type.googleapis.com/istio.workload.Address"}' in text


def leaf(node: Node) -> dict[str, str]:
    chain: list[dict[str, str]] = node.certificates()[WEB]["certChain"]
    return chain[0]


def stop(node: Node, agent: subprocess.Popen[bytes]) -> None:
    agent.terminate()
    assert agent.wait(timeout=15) == 0, node.log
