"""`ambit status`, `ztunnel-config` and `ebpf status` against an API server, when all is well and when it is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.ambit import SYSTEM, Done, ambit, enrolled_pod, system_pod, two_nodes
from tests.cli.api_server import Cluster, kubeconfig, reply, serving

Ambit = Callable[..., Done]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serving(two_nodes()) as found:
        yield found


@pytest.fixture
def on_cluster(cluster: Cluster, tmp_path: Path) -> Ambit:
    """`ambit` with a kubeconfig for the cluster."""
    config = kubeconfig(cluster, tmp_path / "config")
    return lambda *words: ambit(*words, home=tmp_path, KUBECONFIG=str(config))


def test_status_of_a_mesh_that_is_well(on_cluster: Ambit) -> None:
    done = on_cluster("status")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["ambit-node-b/ztunnel", "running", "node2", "1", "-"] in lines
    assert ["node1", "ready", "yes", "1", "0"] in lines
    assert ["shop/web", "node1", "enabled", "namespace", "label", "istio.io/dataplane-mode=ambient"] in lines
    assert "Nothing is wrong." in done.stdout


def test_status_as_json_of_one_node_and_one_namespace(on_cluster: Ambit, cluster: Cluster) -> None:
    cluster.forbidden.add("/api/v1/pods")  # who only looks at a namespace needs no right to others
    done = on_cluster("status", "--node", "node1", "-n", "shop", "-o", "json")
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert [node["name"] for node in report["nodes"]] == ["node1"]
    part = {"running": True, "state": "running", "where": "node1", "starts": 1, "lastEnd": ""}
    assert report["parts"]["ambit-controller-x/controller"] == part


def test_a_node_that_is_silent_is_shown_and_the_others_too(on_cluster: Ambit, cluster: Cluster) -> None:
    cluster.silent.add("ambit-node-b")
    done = on_cluster("status")
    assert done.returncode == 1
    assert "node2  not answering" in done.stdout
    assert "node1  ready" in done.stdout
    assert "! ztunnel of node2 does not answer on 127.0.0.1:15000: timed out" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda cluster: cluster.admin.pop(("ambit-node-b", 15000)), "127.0.0.1:15000: connection refused"),
        (lambda cluster: cluster.broken.add("ambit-node-b"), "error dialing backend"),
        (lambda cluster: _answers(cluster, lambda path: reply("no", "500 Oops")), 'HTTP 500: "no"'),
        (lambda cluster: _answers(cluster, lambda path: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"), "no JSON"),
        (lambda cluster: _answers(cluster, lambda path: b""), "without response"),
    ],
)
def test_workloads_of_those_that_answer(
    on_cluster: Ambit, cluster: Cluster, spoil: Callable[[Cluster], object], sentence: str
) -> None:
    spoil(cluster)
    done = on_cluster("ztunnel-config", "workload")
    assert done.returncode == 1
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [["bank", "till"], ["shop", "web"]]
    assert sentence in done.stderr
    assert "node2" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def _answers(cluster: Cluster, answer: Callable[[str], bytes]) -> None:
    cluster.admin["ambit-node-b", 15000] = answer


def test_workloads_of_a_namespace_and_of_all(on_cluster: Ambit) -> None:
    found = json.loads(on_cluster("zc", "workload", "-n", "shop", "--node", "node1", "-o", "json").stdout)
    assert [each["name"] for each in found["node1"]] == ["web"]
    both = json.loads(on_cluster("zc", "workload", "-n", "shop", "-A", "-o", "json").stdout)
    assert [each["name"] for each in both["node2"]] == ["web", "till"]


def test_a_node_that_is_not_there(on_cluster: Ambit) -> None:
    done = on_cluster("zc", "workload", "--node", "node9")
    assert (done.returncode, done.stderr) == (
        1,
        "ambit: there is no node 'node9' in the mesh; there are node1, node2\n",
    )


def test_the_kernel_of_each_node(on_cluster: Ambit, cluster: Cluster) -> None:
    assert json.loads(on_cluster("ebpf", "status", "-o", "json").stdout)["node2"]["enrolled"] == 1
    cluster.output["ambit-node-b"] = ("", "warming up\nno eBPF programs are loaded at /x", 1)
    done = on_cluster("ebpf", "status")
    assert done.returncode == 1
    assert "node2  not answering" in done.stdout
    assert done.stderr == "ambit: the agent of node2 does not answer: no eBPF programs are loaded at /x\n"


def test_what_is_wrong_with_the_pods_of_the_chart(on_cluster: Ambit, cluster: Cluster) -> None:
    crashing = {"name": "agent", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 7}
    crashing["lastState"] = {"terminated": {"reason": "Error", "exitCode": 3, "message": "starting\nno programs\n"}}
    cluster.objects[SYSTEM][1]["status"]["containerStatuses"][1] = crashing
    cluster.objects[SYSTEM][0]["status"] = {"phase": "Pending"}
    waiting = {"state": {"waiting": {"reason": "ContainerCreating"}}, "restartCount": 0}
    cluster.objects[SYSTEM][2]["status"]["containerStatuses"] = [
        {"name": name, **waiting} for name in ("ztunnel", "agent")
    ]
    cluster.objects["/apis/apps/v1/namespaces/ambit-system/daemonsets"][0]["status"]["desiredNumberScheduled"] = 3
    cluster.objects["/api/v1/pods"].append(enrolled_pod("late", ""))
    problems = json.loads(on_cluster("status", "-o", "json").stdout)["problems"]
    assert "ambit-node-a/agent is not running (CrashLoopBackOff, exit code 3: no programs)" in problems
    assert "2 of 3 nodes have a pod of ambit-node: see kubectl -n ambit-system get events" in problems
    assert "no controller is running" in problems
    assert "ambit-node-b/ztunnel,agent are not running (ContainerCreating)" in problems
    assert any(each.startswith("pod shop/late is to be in the mesh and is not yet") for each in problems)


def test_a_pod_that_does_not_run_yet(on_cluster: Ambit, cluster: Cluster) -> None:
    cluster.objects[SYSTEM][2]["status"] = {"phase": "Pending"}
    done = on_cluster("zc", "workload")
    assert done.returncode == 1
    assert done.stderr == "ambit: ztunnel of node2 does not run: pod ambit-node-b is Pending\n"


def test_of_two_node_pods_the_one_that_stays_is_asked(on_cluster: Ambit, cluster: Cluster) -> None:
    leaving = system_pod("ambit-node-old", "node", "node2", "ztunnel", "agent")
    leaving["metadata"]["deletionTimestamp"] = leaving["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    cluster.objects[SYSTEM].append(leaving)
    assert on_cluster("zc", "workload").returncode == 0


def test_long_lists_are_read_page_by_page(on_cluster: Ambit, cluster: Cluster) -> None:
    cluster.objects["/api/v1/pods"] += [enrolled_pod(f"web-{number}") for number in range(1200)]
    report = json.loads(on_cluster("status", "-o", "json").stdout)
    assert len(report["enrolled"]) == 1201


# --- refusals: one sentence, with what to do


def sentence(done: Done) -> str:
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_ambit_is_not_installed(on_cluster: Ambit, cluster: Cluster) -> None:
    assert "ambit install" in sentence(on_cluster("status", "--system-namespace", "elsewhere"))


@pytest.mark.parametrize(("words", "right"), [(("zc", "workload"), "portforward"), (("ebpf", "status"), "exec")])
def test_no_right_to_look_into_pods(on_cluster: Ambit, cluster: Cluster, words: tuple[str, ...], right: str) -> None:
    """It is the same for all nodes, and said once."""
    cluster.forbidden.add(right)
    told = sentence(on_cluster(*words))
    assert f'cannot get resource "{right}"' in told
    assert "administrator" in told


def test_no_right_to_read_what_is_installed(on_cluster: Ambit, cluster: Cluster) -> None:
    cluster.forbidden.add("ambit-node")
    assert "no right to read what is installed" in sentence(on_cluster("status"))


def test_no_right_to_list_pods_leaves_the_rest_of_status(on_cluster: Ambit, cluster: Cluster) -> None:
    cluster.forbidden.add("/api/v1/pods")
    done = on_cluster("status")
    assert "node1  ready" in done.stdout
    assert "! no right to list pods of all namespaces in context here" in done.stdout


def test_credentials_that_have_expired(on_cluster: Ambit, cluster: Cluster) -> None:
    cluster.token = "another"
    assert "have expired; sign in again" in sentence(on_cluster("status"))


def test_no_api_server(on_cluster: Ambit) -> None:
    found = sentence(on_cluster("status", "--context", "other"))
    assert "http://127.0.0.1:1 of context other cannot be reached" in found
    assert "refused" in found


def test_no_such_context(on_cluster: Ambit) -> None:
    assert "has no context 'nowhere'; it has here, other" in sentence(on_cluster("status", "--context", "nowhere"))


def test_a_kubeconfig_that_is_not_there_or_is_none(on_cluster: Ambit, tmp_path: Path) -> None:
    assert "missing" in sentence(on_cluster("status", "--kubeconfig", str(tmp_path / "missing")))
    (tmp_path / "odd").write_text("{]")
    assert "kubeconfig" in sentence(on_cluster("status", "--kubeconfig", str(tmp_path / "odd")))


def test_two_homes_named(on_cluster: Ambit) -> None:
    assert "give one" in sentence(on_cluster("status", "--local", "--context", "here"))


def test_neither_home(tmp_path: Path) -> None:
    said = sentence(ambit("status", home=tmp_path))
    assert "ambit local up" in said
    assert "--kubeconfig" in said
