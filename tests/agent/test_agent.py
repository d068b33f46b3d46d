"""The agent as its neighbours see it: a real process, a real control plane, a real node agent, real namespaces."""

from __future__ import annotations

import pytest

from mesh.model.update import MeshUpdate
from tests.agent.node import Node, TestPod, eventually

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
