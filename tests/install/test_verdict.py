"""What is said of a cluster before anything is installed."""

from __future__ import annotations

from typing import Any

import pytest

from cli.install.verdict import Check, Facts, Status, judge


def node(name: str = "node1", kernel: str = "6.1.0", runtime: str = "containerd://1.7.2", ready: str = "True") -> Any:
    info = {"kernelVersion": kernel, "containerRuntimeVersion": runtime, "operatingSystem": "linux"}
    return {
        "metadata": {"name": name},
        "status": {"nodeInfo": info, "conditions": [{"type": "Ready", "status": ready}]},
    }


def workload(namespace: str, name: str) -> Any:
    return {"metadata": {"namespace": namespace, "name": name}}


GATEWAY = frozenset({"gateways", "httproutes", "gatewayclasses"})


def facts(**changed: Any) -> Facts:
    good = {"version": "v1.34.4", "nodes": [node()], "resources": GATEWAY, "cgroups": {"node1": 2}}
    return Facts(**{**good, **changed})


def problems(found: list[Check]) -> list[Check]:
    return [each for each in found if each.status is not Status.OK]


def test_a_cluster_that_has_everything_has_no_problem() -> None:
    assert problems(judge(facts())) == []


@pytest.mark.parametrize(
    ("changed", "name", "status", "told"),
    [
        ({"version": "v1.29.9"}, "Kubernetes version", Status.FAILED, "1.30"),
        ({"version": "no version"}, "Kubernetes version", Status.FAILED, "1.30"),
        ({"may_install": False}, "your rights", Status.FAILED, "administrator"),
        ({"nodes": []}, "nodes", Status.FAILED, "add a Linux node"),
        ({"nodes": [node(kernel="5.10.0-30-amd64")]}, "node node1", Status.FAILED, "6.1"),
        ({"nodes": [node(kernel="5.15.0-100-generic")]}, "node node1", Status.WARNING, "6.1"),
        ({"nodes": [node(runtime="docker://24.0")]}, "node node1", Status.WARNING, "containerd"),
        ({"cgroups": {}}, "cgroups", Status.WARNING, "ambit check --local"),
        ({"cgroups": {"node1": 1, "node2": 2}}, "cgroups", Status.WARNING, "unified"),
        ({"nodes": [node(ready="False")]}, "node node1", Status.WARNING, "describe node node1"),
        (
            {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}},
            "pod security",
            Status.FAILED,
            "kubectl label",
        ),
        ({"workloads": [workload("istio-system", "ztunnel")]}, "another mesh", Status.FAILED, "istioctl"),
        ({"workloads": [workload("kube-system", "cilium")]}, "another mesh", Status.WARNING, "cni.exclusive"),
        ({"workloads": [workload("linkerd", "linkerd-destination")]}, "another mesh", Status.WARNING, "linkerd"),
        ({"resources": frozenset()}, "Gateway API", Status.WARNING, "kubectl apply"),
        ({"resources": GATEWAY - {"httproutes"}}, "Gateway API", Status.WARNING, "kubectl apply"),
    ],
)
def test_each_problem_has_a_remedy(changed: dict[str, Any], name: str, status: Status, told: str) -> None:
    (found,) = problems(judge(facts(**changed)))
    assert (found.name, found.status) == (name, status)
    assert told in found.remedy


def test_what_the_agents_asked_counts_more_than_a_version() -> None:
    old = node(kernel="5.10.0-with-backports")
    assert problems(judge(facts(nodes=[old], features={"node1": []}))) == []
    (found,) = problems(judge(facts(features={"node1": [("bpffs", "mount one")]})))
    assert (found.status, found.found, found.remedy) == (Status.FAILED, "no bpffs", "mount one")


def test_a_kernel_that_was_asked_knows_its_cgroups_better_than_the_kubelet() -> None:
    beside = facts(cgroups={"node1": 1}, features={"node1": []})
    assert problems(judge(beside)) == []
    without = facts(features={"node1": [("cgroup v2", "mount it")]})
    assert {each.name for each in problems(judge(without))} == {"node node1", "cgroups"}


def test_only_nodes_with_a_problem_are_named() -> None:
    found = problems(judge(facts(nodes=[node("a"), node("b", kernel="5.4.0"), node("c")])))
    assert [each.name for each in found] == ["node b"]


def test_ambits_own_workloads_are_no_other_mesh() -> None:
    assert problems(judge(facts(workloads=[workload("ambit-system", "ztunnel")]))) == []


def test_windows_nodes_do_not_matter() -> None:
    windows = node("w", kernel="10.0.20348")
    windows["status"]["nodeInfo"]["operatingSystem"] = "windows"
    assert problems(judge(facts(nodes=[node(), windows]))) == []
