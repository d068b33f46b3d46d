"""What a user sees once the chart is installed."""

from __future__ import annotations

import json

from tests.kube.installed import NAMESPACE, KubeMesh, until


def test_every_part_is_ready(mesh: KubeMesh) -> None:
    pods = mesh.get("pods", "-n", NAMESPACE, "-l", "app in (ambit-node, ambit-controller)")["items"]
    assert sorted(each["spec"]["nodeName"] for each in pods if each["metadata"]["labels"]["app"] == "ambit-node") == [
        *mesh.nodes
    ]
    assert all(status["ready"] for each in pods for status in each["status"]["containerStatuses"])
    assert mesh.ambit("status").returncode == 0


def test_nothing_is_captured_without_a_label(mesh: KubeMesh) -> None:
    assert set(mesh.redirections("kube-system").values()) == {""}


def test_policies_can_be_written(mesh: KubeMesh) -> None:
    """With the chart alone: its CRDs came along, and the controller reads what they define."""
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "tried"},
        "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]},
    }
    with mesh.namespace("policies") as namespace:
        policy["metadata"] = {"name": "tried", "namespace": namespace}
        mesh.apply(json.dumps(policy))
        until(
            lambda: mesh.get("authorizationpolicy", "tried", "-n", namespace).get("status", {}).get("conditions"),
            "the policy's status says what of it holds",
        )
