"""The cluster does what a user of Kubernetes expects of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.cluster import images, nodes, processes
from tests.cluster.archives import as_buildah, as_docker
from tests.cluster.commands import run
from tests.cluster.conftest import Busy
from tests.cluster.daemons import change
from tests.cluster.image_archive import make_image
from tests.cluster.plan import BIN

pytestmark = pytest.mark.root


def url(address: object, port: int) -> str:
    return f"http://[{address}]:{port}/" if ":" in str(address) else f"http://{address}:{port}/"


def test_pods_of_every_node_are_reached_in_both_families(busy: Busy) -> None:
    nodes_by_address = busy.web_addresses()
    assert len(nodes_by_address) == 4
    assert {address: busy.fetch(url(address, 8080)) for address in nodes_by_address} == nodes_by_address


def test_services_have_names_and_addresses_in_both_families(busy: Busy) -> None:
    addresses = busy.get("service", "web", ".spec.clusterIPs[*]").split()
    assert len(addresses) == 2
    for host in ("web.default.svc.cluster.local", *addresses):
        assert busy.fetch(url(host, 80)) in ("node1", "node2")


def test_node_ports_answer_a_neighbour_that_is_no_node(busy: Busy) -> None:
    for node in busy.cluster.nodes:
        for address in node.addresses:
            assert busy.fetch_outside(url(address, 30080)) in ("node1", "node2")


def test_the_api_server_and_a_pod_prove_themselves_to_each_other(busy: Busy) -> None:
    directory = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert '"gitVersion": "v1.34' in busy.fetch("https://kubernetes.default.svc/version", f"{directory}/token")
    with pytest.raises(subprocess.CalledProcessError, match="403 Forbidden"):
        busy.fetch("https://kubernetes.default.svc/api/v1/nodes", f"{directory}/token")


def test_kubelet_answers_nobody_but_whom_the_api_server_allows(busy: Busy) -> None:
    with pytest.raises(subprocess.CalledProcessError, match=r"x509|certificate"):
        busy.fetch_outside(f"https://{busy.cluster.nodes[0].addresses[0]}:10250/pods")


def test_a_node_has_files_of_its_own_at_the_paths_of_a_host(busy: Busy) -> None:
    first, second = busy.cluster.nodes
    for path in ("/etc/cni/net.d/ambit-test", "/run/ambit-test", "/var/lib/ambit-test", "/opt/cni/bin/ambit-test"):
        nodes.on_node(first, "touch", path)
        assert Path(f"{nodes.paths(first)['root']}{path}").exists()
        assert not Path(f"{nodes.paths(second)['root']}{path}").exists()
        assert not Path(path).exists()
        nodes.on_node(first, "rm", path)


def test_a_node_sees_its_own_processes_and_bpf_file_system_only(busy: Busy) -> None:
    first, second = busy.cluster.nodes
    assert nodes.on_node(first, "cat", "/proc/1/comm").strip() == "pause"
    nodes.on_node(first, "mkdir", "/sys/fs/bpf/ambit-test")
    assert "ambit-test" not in nodes.on_node(second, "ls", "/sys/fs/bpf")
    assert not Path("/sys/fs/bpf/ambit-test").exists()
    nodes.on_node(first, "rmdir", "/sys/fs/bpf/ambit-test")


def test_pods_are_in_the_nodes_cgroups_as_the_machine_and_as_the_node_see_them(busy: Busy) -> None:
    node = busy.cluster.node("node1")
    pod = f"pod{busy.get('pod', 'client', '.metadata.uid')}"
    where = nodes.paths(node)
    assert [path.name for path in Path(str(where["machine_cgroup_root"])).rglob("pod*") if path.name == pod]
    assert pod in nodes.on_node(node, "find", str(where["cgroup_root"]), "-name", pod)


@pytest.mark.parametrize("daemon", ["containerd", "kubelet", "kube-proxy"])
def test_pods_outlive_a_daemon_that_is_killed(busy: Busy, daemon: str) -> None:
    before = busy.get("pod", "client", ".status.containerStatuses[0].containerID")
    change(busy.cluster, f"node1.{daemon}", "restart", kill=True)
    url_of_service = url("web.default.svc.cluster.local", 80)
    answer = processes.wait("exec works again", partial(busy.fetch, url_of_service), 60)
    assert answer in ("node1", "node2")
    assert busy.get("pod", "client", ".status.containerStatuses[0].containerID") == before


def test_the_api_server_goes_and_comes_back(busy: Busy) -> None:
    change(busy.cluster, "kube-apiserver", "stop")
    with pytest.raises(subprocess.CalledProcessError, match="refused"):
        busy.kubectl("get", "nodes")
    assert busy.fetch_outside(url(busy.cluster.nodes[0].addresses[0], 30080)) in ("node1", "node2")
    change(busy.cluster, "kube-apiserver", "start")
    assert "node2" in busy.kubectl("get", "nodes")


def test_archives_of_other_tools_are_loaded_under_their_names(busy: Busy, tmp_path: Path) -> None:
    """docker's own format, and OCI's with no annotation but OCI's own, as buildah writes it."""
    made = tmp_path / "made.tar"
    make_image(made, "localhost/ambit-test/other:dev", ("/probe",), {"/probe": BIN / "probe"})
    for kind, convert in (("docker", as_docker), ("oci", as_buildah)):
        name = f"localhost/ambit-test/{kind}:dev"
        convert(made, tmp_path / f"{kind}.tar", name)
        assert images.load(busy.cluster, tmp_path / f"{kind}.tar") == [name]
        busy.kubectl("run", kind, f"--image={name}", "--restart=Never", "--", "get", "http://web.default/")
        busy.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{kind}", "--timeout=60s")
        assert busy.kubectl("logs", kind).strip() in ("node1", "node2")
        listed = nodes.on_node(busy.cluster.nodes[0], *images.CTR, "list", "--quiet").splitlines()
        assert [one for one in listed if f"ambit-test/{kind}:" in one] == [name]


def test_an_image_that_is_loaded_again_is_the_new_one(busy: Busy, tmp_path: Path) -> None:
    name = "localhost/ambit-test/again:dev"
    for arguments in (("get", "http://nowhere.invalid/"), ("get", "http://web.default/")):
        make_image(tmp_path / "image.tar", name, ("/probe", *arguments), {"/probe": BIN / "probe"})
        images.load(busy.cluster, tmp_path / "image.tar")
    busy.kubectl("run", "again", f"--image={name}", "--restart=Never")
    busy.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/again", "--timeout=60s")


def test_commands_say_where_things_are_and_run_there(busy: Busy) -> None:
    def command(*arguments: str) -> str:
        return run(sys.executable, "-m", "tests.cluster", "--name", busy.cluster.name, *arguments)

    paths = json.loads(command("paths", "node2", "--json"))
    assert Path(paths["root"] + paths["cni_config"], "10-pods.conflist").exists()
    assert Path(paths["root"] + paths["cgroup_root"]).is_dir()
    assert Path(paths["machine_cgroup_root"]).is_dir()
    assert command("exec", "node2", "--", "hostname").strip() == "node2"
    assert command("exec", "node2", "--", "pwd").strip() == str(Path.cwd())
    assert "ready nodes: node1, node2" in command("status")
    command("restart", "node2", "kube-proxy")
    assert command("kubeconfig").strip() == str(busy.cluster.kubeconfig)


def test_a_node_does_not_see_what_a_local_mesh_of_the_machine_keeps(busy: Busy) -> None:
    place = Path(f"/var/lib/ambit/ambit-test-{os.getpid()}")
    place.mkdir(parents=True)
    try:
        for node in busy.cluster.nodes:
            assert place.name not in nodes.on_node(node, "ls", "/var/lib/ambit")
    finally:
        place.rmdir()
