"""What the rendered objects promise, whatever the values."""

from __future__ import annotations

import yaml

from tests.helm import chart
from tests.helm.chart import Object, containers, environment


def node(*values: str) -> Object:
    return chart.one(chart.render(*values), "DaemonSet", "ambit-node")["spec"]["template"]


def controller(*values: str) -> Object:
    return chart.one(chart.render(*values), "Deployment", "ambit-controller")["spec"]["template"]


def uninstall_pods(*values: str) -> dict[str, Object]:
    found = chart.one(chart.render(*values), "ConfigMap", "ambit-uninstall")["data"]
    return {name: yaml.safe_load(text) for name, text in found.items()}


def test_every_container_has_a_read_only_root_and_drops_all_capabilities() -> None:
    pods = [node()["spec"], controller()["spec"], *(each["spec"] for each in uninstall_pods().values())]
    for pod in pods:
        for name, container in containers(pod).items():
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"], name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"]["drop"] == ["ALL"], name
            assert "privileged" not in context, name


def test_only_who_touches_the_kernel_has_capabilities() -> None:
    parts = containers(node()["spec"])
    assert {name for name, each in parts.items() if each["securityContext"]["capabilities"].get("add")} == {
        "loader",
        "ztunnel",
        "agent",
    }
    assert not [
        each for each in containers(controller()["spec"]).values() if "add" in each["securityContext"]["capabilities"]
    ]


def test_the_readme_lists_the_capabilities_that_are_given() -> None:
    lines = (chart.CHART / "README.md").read_text().partition("## Privileges on the node")[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    told = {(row[0], row[1]) for row in cells[2:] if row[1] != "none"}
    parts = containers(node()["spec"])
    assert told == {
        (name, each) for name, part in parts.items() for each in part["securityContext"]["capabilities"].get("add", ())
    }
    assert {row[0] for row in cells[2:]} == set(parts)


def test_a_privileged_loader_only_where_it_must_mount() -> None:
    parts = containers(node("node.mountBpffs=true")["spec"])
    assert parts["loader"]["securityContext"]["privileged"] is True
    assert [name for name, each in parts.items() if each["securityContext"].get("privileged")] == ["loader"]


def test_the_controller_is_not_root() -> None:
    context = controller()["spec"]["securityContext"]
    assert context["runAsNonRoot"]
    assert context["runAsUser"] > 0


def test_ztunnel_gets_no_token_for_the_api_server() -> None:
    pod = node()["spec"]
    assert pod["automountServiceAccountToken"] is False
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounted = {each["name"] for each in containers(pod)["ztunnel"]["volumeMounts"]}
    tokens = {
        source["serviceAccountToken"].get("audience")
        for name in mounted
        for source in volumes[name].get("projected", {}).get("sources", ())
        if "serviceAccountToken" in source
    }
    assert tokens == {"istio-ca"}


def test_ztunnel_and_agent_meet_at_the_same_places() -> None:
    parts = containers(node("node.paths.run=/run/mesh", "node.paths.pins=/sys/fs/bpf/mesh")["spec"])
    ztunnel, agent = environment(parts["ztunnel"]), environment(parts["agent"])
    for name in ("INPOD_UDS", "AMBIT_BPF_PINS"):
        assert ztunnel[name] == agent[name]
    assert agent["AMBIT_CNI_SOCKET"] == "/run/mesh/cni.sock"
    assert "--socket=/run/mesh/cni.sock" in parts["cni"]["args"]
    assert f"--enrolled-namespaces={agent['AMBIT_ENROLLED_NAMESPACES']}" in parts["cni"]["args"]
    assert "/sys/fs/bpf/mesh" in parts["loader"]["args"]


def test_probes_pass_wherever_the_cgroup_of_pods_is() -> None:
    """The loader attaches above the kubelet only when it is told to, or looks for all by itself."""
    for cgroup in ("auto", "/sys/fs/cgroup/kubepods"):
        arguments = containers(node(f"node.paths.cgroup={cgroup}")["spec"])["loader"]["args"]
        given = dict(zip(arguments[::2], arguments[1::2], strict=True))
        assert given["--cgroup"] == cgroup
        assert given["--node-cgroup"] == "auto"


def test_ztunnel_finds_the_controller_by_a_name_of_its_certificate() -> None:
    address = environment(containers(node()["spec"])["ztunnel"])["XDS_ADDRESS"]
    host = address.removeprefix("https://").rpartition(":")[0]
    assert f"--name={host}" in controller()["spec"]["containers"][0]["args"]


def test_ambits_own_namespace_and_pods_are_never_in_the_mesh() -> None:
    excluded = environment(containers(node("mesh.excludedNamespaces={kube-system,other}")["spec"])["agent"])
    assert excluded["AMBIT_EXCLUDED_NAMESPACES"].split(",") == ["kube-system", "other", chart.NAMESPACE]
    for pod in (node(), controller()):
        assert pod["metadata"]["labels"]["istio.io/dataplane-mode"] == "none"


def test_selectors_do_not_change_with_versions() -> None:
    """They are immutable: an upgrade would be refused."""
    for kind, name in (("DaemonSet", "ambit-node"), ("Deployment", "ambit-controller")):
        found = chart.one(chart.render("images.node.tag=other"), kind, name)["spec"]
        assert found["selector"] == {"matchLabels": {"app": name}}
        assert found["selector"]["matchLabels"].items() <= found["template"]["metadata"]["labels"].items()


def test_an_image_has_the_charts_version_unless_told_otherwise() -> None:
    version = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())["appVersion"]
    assert {each["image"] for each in containers(node()["spec"]).values()} == {f"ambit/node:{version}"}
    other = node("images.node.repository=example/x", "images.node.tag=v7")["spec"]
    assert {each["image"] for each in containers(other).values()} == {"example/x:v7"}


def test_who_cleans_up_sees_what_the_node_used() -> None:
    values = ("node.paths.run=/run/mesh", "node.paths.pins=/sys/fs/bpf/mesh", "node.paths.cniBin=/cni/bin")
    agent = containers(node(*values)["spec"])["agent"]
    pods = uninstall_pods(*values)
    for name in ("withdraw.yaml", "remove.yaml"):
        withdraw = containers(pods[name]["spec"])["withdraw"]
        assert withdraw["env"] == agent["env"]
        assert withdraw["volumeMounts"] == agent["volumeMounts"]
        assert withdraw["image"] == agent["image"]
    assert "--bin-dir=/cni/bin" in containers(pods["remove.yaml"]["spec"])["cni"]["args"]
    assert [name for name in containers(pods["remove.yaml"]["spec"])] == ["withdraw", "cni", "files"]


def test_every_container_asks_for_resources() -> None:
    for pod in (node(), controller()):
        for name, each in containers(pod["spec"]).items():
            assert {"cpu", "memory"} <= each["resources"]["requests"].keys(), name


def test_optional_objects_are_only_there_when_asked_for() -> None:
    kinds = {each["kind"] for each in chart.render()}
    assert not kinds & {"NetworkPolicy", "PodDisruptionBudget"}
    assert "NetworkPolicy" in {each["kind"] for each in chart.render("networkPolicy=true")}


def test_uninstallation_removes_files_of_ambit_only() -> None:
    """Whoever says node.paths.state=/var/lib must find his node as it was."""
    pods = uninstall_pods("node.paths.state=/var/lib", "node.paths.run=/run")
    files = containers(pods["remove.yaml"]["spec"])["files"]
    assert [*files["command"], *files["args"]] == [
        "rm",
        "-rf",
        "/run/cni.sock",
        "/run/ztunnel.sock",
        "/var/lib/node",
        "/var/lib/ztunnel",
    ]


def test_the_uninstaller_goes_to_no_node_that_is_away() -> None:
    """It runs where the controller may, and on any control plane. Whoever tolerates everything may be put on a node
    that never starts it."""
    job = chart.one(chart.render("controller.tolerations[0].key=mesh"), "Job", "ambit-uninstall")
    tolerated = {each.get("key") for each in job["spec"]["template"]["spec"]["tolerations"]}
    assert {"mesh", "node-role.kubernetes.io/control-plane"} <= tolerated
    assert not tolerated & {None, "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
