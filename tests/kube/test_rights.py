"""What the service accounts of the chart may do at the API server: what its table says, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.store.kubernetes.api import ApiServer
from controller.store.kubernetes.errors import Refused
from tests.kube import accounts, pods
from tests.kube.installed import CHART, NAMESPACE, KubeMesh

STRATEGIC = "application/strategic-merge-patch+json"  # lists by name
ACCOUNTS = ("ambit-node", "ambit-controller")
Right = tuple[str, str, str, str]  # group, resource, name or "", verb


def table(account: str, where: tuple[str, ...]) -> set[Right]:
    """The rows of the README for one account."""
    found = set()
    for line in (CHART / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0] == account and cells[1] in where:
            found |= set(_row(*cells[2:5]))
    return found


def _row(resources: str, only: str, verbs: str) -> Iterator[Right]:
    for name in re.split(r", *", resources):
        resource, _, group = name.partition(".")
        group, slash, subresource = group.partition("/")
        resource += slash + subresource
        for verb in re.split(r", *", verbs):
            yield from ((group, resource, each, verb) for each in re.split(r", *", only))


def rights(server: ApiServer, namespace: str) -> set[Right]:
    """What the API server says of whoever asks."""
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview"}
    answer = server.create(
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {**kind, "spec": {"namespace": namespace}}
    )
    return {
        (group, resource, name, verb)
        for rule in answer["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def elsewhere(mesh: KubeMesh) -> Iterator[str]:
    """A namespace of somebody, with what he would not want to be touched."""
    with mesh.namespace("rights") as name:
        mesh.apply(pods.manifest(pods.idle(name, "victim")))
        mesh.kubectl("create", "secret", "generic", "mine", "--from-literal=word=secret", "-n", name)
        mesh.kubectl("create", "configmap", "mine", "--from-literal=word=plain", "-n", name)
        mesh.wait_ready(name)
        yield name


@pytest.fixture(params=ACCOUNTS)
def account(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_rights_are_those_of_the_table(mesh: KubeMesh, elsewhere: str, account: str, tmp_path: Path) -> None:
    nobody = accounts.api(mesh, accounts.token(mesh, "default", namespace=elsewhere), tmp_path)
    everybody = rights(nobody, elsewhere)
    server = accounts.api(mesh, accounts.token(mesh, account), tmp_path)
    assert rights(server, NAMESPACE) - everybody == table(account, ("cluster", "namespace"))
    assert rights(server, elsewhere) - everybody == table(account, ("cluster",))


def refused(server: ApiServer, method: str, path: str, body: Any = None) -> bool:
    try:
        match method:
            case "GET":
                server.get(path)
            case "POST":
                server.create(path, body or {})
            case "PATCH":
                server.patch(path, body)
            case "DELETE":
                server.delete(path)
    except Refused as error:
        return "(403)" in str(error)
    return False


def attempts(elsewhere: str, node: str) -> list[tuple[str, str, Any]]:
    """What neither account may do."""
    there, here = f"/api/v1/namespaces/{elsewhere}", f"/api/v1/namespaces/{NAMESPACE}"
    label = {"metadata": {"labels": {"touched": "yes"}}}
    binding = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    pod = pods.idle(elsewhere, "intruder")
    return [
        ("GET", "/api/v1/secrets", None),
        ("GET", f"{there}/secrets/mine", None),
        ("GET", f"{here}/secrets", None),
        ("GET", f"{here}/secrets/sh.helm.release.v1.ambit.v1", None),
        ("GET", f"{there}/configmaps/mine", None),
        ("GET", "/api/v1/configmaps", None),
        ("POST", f"{there}/configmaps", {"metadata": {"name": "new"}}),
        ("POST", f"{there}/secrets", {"metadata": {"name": "new"}}),
        ("POST", f"{there}/pods", pod),
        ("POST", f"{here}/pods", {**pod, "metadata": {"name": "intruder", "namespace": NAMESPACE}}),
        ("DELETE", f"{there}/pods/victim", None),
        ("POST", f"{there}/pods/victim/exec?command=/probe&stdout=true", None),
        ("POST", f"{there}/pods/victim/portforward?ports=80", None),
        ("GET", f"{there}/pods/victim/log", None),
        ("POST", f"{there}/pods/victim/binding", {"target": {"kind": "Node", "name": node}}),
        ("PATCH", f"/api/v1/namespaces/{elsewhere}", label),
        ("DELETE", f"/api/v1/namespaces/{elsewhere}", None),
        ("PATCH", f"/api/v1/nodes/{node}", label),
        ("GET", f"/api/v1/nodes/{node}/proxy/pods", None),
        ("POST", f"{there}/serviceaccounts/default/token", review),
        ("POST", f"{here}/serviceaccounts/ambit-controller/token", review),
        ("POST", binding, {"metadata": {"name": "intruder"}, "roleRef": {"kind": "ClusterRole", "name": "admin"}}),
        ("GET", "/apis/apps/v1/deployments", None),
        ("DELETE", f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/ambit-node", None),
        ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases", None),
    ]


def test_everything_else_is_refused(mesh: KubeMesh, elsewhere: str, account: str, tmp_path: Path) -> None:
    server = accounts.api(mesh, accounts.token(mesh, account), tmp_path)
    tried = attempts(elsewhere, mesh.nodes[0])
    assert [(method, path) for method, path, body in tried if not refused(server, method, path, body)] == []


def test_the_node_may_annotate_pods_and_see_no_node(mesh: KubeMesh, elsewhere: str, tmp_path: Path) -> None:
    server = accounts.api(mesh, accounts.token(mesh, "ambit-node"), tmp_path)
    path = f"/api/v1/namespaces/{elsewhere}/pods/victim"
    assert refused(server, "GET", "/api/v1/nodes")
    assert refused(server, "PATCH", f"{path}/status", {"status": {"phase": "Failed"}})
    assert refused(server, "GET", f"/api/v1/namespaces/{NAMESPACE}/secrets/ambit-ca")


PATCHES: dict[str, Any] = {
    "somebody's annotation": {"metadata": {"annotations": {"ambit.io/test": "seen"}}},
    "an annotation that is there": {"metadata": {"annotations": {"owner": None}}},
    "one that is there, otherwise": {"metadata": {"annotations": {"owner": "other"}}},
    "a label": {"metadata": {"labels": {"istio.io/dataplane-mode": "none"}}},
    "a label less": {"metadata": {"labels": {"app": None}}},
    "an image": {"spec": {"containers": [{"name": "main", "image": "intruder"}]}},
    "a finalizer": {"metadata": {"finalizers": ["ambit.io/stuck"]}},
    "a time to live": {"spec": {"activeDeadlineSeconds": 1}},
}


@pytest.fixture(scope="module")
def patched(mesh: KubeMesh, elsewhere: str) -> str:
    """The path of a pod on the first node, with an annotation of its owner's."""
    made = pods.idle(elsewhere, "patched", mesh.nodes[0])
    made["metadata"]["annotations"] = {"owner": "me"}
    mesh.apply(pods.manifest(made))
    mesh.kubectl("wait", "pod", "patched", "-n", elsewhere, "--for=condition=Ready", "--timeout=120s")
    return f"/api/v1/namespaces/{elsewhere}/pods/patched"


def node_agent(mesh: KubeMesh, node: str, place: Path) -> ApiServer:
    """With the token that it has: a pod's, that says the node."""
    return accounts.api(mesh, accounts.token(mesh, "ambit-node", pod=accounts.node_pod(mesh, node)), place)


def test_a_node_agent_annotates_pods_of_its_own_node(mesh: KubeMesh, patched: str, tmp_path: Path) -> None:
    said: dict[str, str | None]
    here, there = (node_agent(mesh, node, tmp_path) for node in mesh.nodes)
    for said in ({"ambit.io/redirection-reason": "a test"}, {"ambit.io/redirection-reason": None}):
        change = {"metadata": {"annotations": said}}
        found = here.patch(patched, change)["metadata"]["annotations"]
        assert found.get("ambit.io/redirection-reason") == said["ambit.io/redirection-reason"]
        with pytest.raises(Refused, match="of its own node only"):
            there.patch(patched, change)


@pytest.mark.parametrize("change", PATCHES.values(), ids=list(PATCHES))
def test_a_node_agent_changes_nothing_else_of_pods(mesh: KubeMesh, patched: str, tmp_path: Path, change: Any) -> None:
    """Though RBAC lets it patch them."""
    with pytest.raises(Refused, match="ambit-node may change"):
        node_agent(mesh, mesh.nodes[0], tmp_path).patch(patched, change, STRATEGIC)


def test_the_controller_has_its_ca_and_changes_no_pod(mesh: KubeMesh, elsewhere: str, tmp_path: Path) -> None:
    server = accounts.api(mesh, accounts.token(mesh, "ambit-controller"), tmp_path)
    assert server.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/ambit-ca")["data"]
    label = {"metadata": {"labels": {"touched": "yes"}}}
    assert refused(server, "PATCH", f"/api/v1/namespaces/{elsewhere}/pods/victim", label)
    assert refused(server, "PATCH", f"/api/v1/namespaces/{NAMESPACE}/secrets/ambit-ca", {"data": {}})


def test_ztunnel_has_no_token_for_the_api_server(mesh: KubeMesh) -> None:
    """Only the one that says who it is to the controller."""
    pod = f"{NAMESPACE}/{accounts.node_pod(mesh, mesh.nodes[0])}"
    program = "import os; print(sorted(os.listdir('/var/run/secrets')))"
    assert mesh.exec(pod, "python", "-c", program, container="ztunnel").strip() == "['ambit', 'tokens']"


def test_what_runs_is_refused_nothing(mesh: KubeMesh) -> None:
    for words in (("daemonset/ambit-node", "--all-containers", "--all-pods"), ("deployment/ambit-controller",)):
        assert "forbidden" not in mesh.kubectl("logs", "-n", NAMESPACE, *words).lower()
