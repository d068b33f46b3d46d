"""What a user sees once the chart is installed."""

from __future__ import annotations

from tests.kube.installed import NAMESPACE, KubeMesh


def test_every_part_is_ready(mesh: KubeMesh) -> None:
    pods = mesh.get("pods", "-n", NAMESPACE, "-l", "app in (ambit-node, ambit-controller)")["items"]
    assert sorted(each["spec"]["nodeName"] for each in pods if each["metadata"]["labels"]["app"] == "ambit-node") == [
        *mesh.nodes
    ]
    assert all(status["ready"] for each in pods for status in each["status"]["containerStatuses"])
    assert mesh.ambit("status").returncode == 0


def test_nothing_is_captured_without_a_label(mesh: KubeMesh) -> None:
    assert set(mesh.redirections("kube-system").values()) == {""}
