"""One node: its namespaces with a process 1, containerd, kubelet and kube-proxy."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import cgroups, processes
from tests.cluster.commands import run
from tests.cluster.node_config import conflist, containerd_config, kubelet_config, proxy_config
from tests.cluster.pki import Authority
from tests.cluster.plan import BIN, Node
from tests.cluster.processes import Record

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CNI_CONFIG, CNI_PLUGINS = "/etc/cni/net.d", "/opt/cni/bin"
DEBIAN_PLUGINS = Path("/usr/lib/cni")
SYSTEM = "system"
DAEMONS = ("containerd", "kubelet", "kube-proxy")


def system_group(node: Node) -> str:
    """Of the node's daemons, beside `kubepods`."""
    return f"{node.group}/{SYSTEM}"


def start_init(node: Node) -> None:
    """Make the namespaces; the root of the cgroup namespace is the group that process 1 is in at that moment."""
    cgroups.create(node.group)
    (node.state / "ready").unlink(missing_ok=True)
    hierarchies = [part for one in cgroups.hierarchies() for part in (one.kind, one.options, str(one.path))]
    net = f"--net=/run/netns/{node.cluster.namespace(node.name)}"
    unshare = ("unshare", "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--fork")
    script = ("sh", str(Path(__file__).with_name("node.sh")), str(node.state), str(BIN / "pause"), node.name)
    command = ("nsenter", net, "--", *unshare, *script, *hierarchies)
    record = processes.start(node.cluster, Record(f"{node.name}.init", node.group, command, forks=True))
    processes.wait(f"{node.name} has its file system", lambda: _ready(node, record))
    cgroups.retreat(node.group, SYSTEM)


def _ready(node: Node, record: Record) -> bool:
    if not processes.alive(record):
        log = node.cluster.state / "log" / f"{record.name}.log"
        raise ChildProcessError(f"{node.name} does not start, see {log}: {log.read_text().strip()[-300:]}")
    return (node.state / "ready").exists()


def entering(node: Node, *options: str) -> tuple[str, ...]:
    """The command prefix that runs what follows on the node. Raises RuntimeError when the node does not run."""
    record = processes.load(node.cluster, f"{node.name}.init")
    if not processes.alive(record):
        raise RuntimeError(
            f"{node.name} of {node.cluster.name} does not run; `python -m tests.cluster status` says more"
        )
    kinds = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
    return ("nsenter", f"--target={record.pid}", *kinds, *options, "--")


def on_node(node: Node, *command: str, text: str | None = None) -> str:
    return run(*entering(node), *command, text=text)


def configure(node: Node, authority: Authority) -> None:
    """Write every configuration file of the node, its certificate and its CNI plugins."""
    kubernetes = node.state / "kubernetes"
    kubernetes.mkdir(parents=True, exist_ok=True)
    name = f"system:node:{node.name}"
    authority.write(kubernetes, "kubelet", name, ("system:nodes",), (node.name, *node.addresses))
    authority.kubeconfig(kubernetes / "kubelet.kubeconfig", node.cluster.server, name, ("system:nodes",))
    authority.kubeconfig(kubernetes / "kube-proxy.kubeconfig", node.cluster.server, "system:kube-proxy", ())
    (kubernetes / "kubelet.json").write_text(json.dumps(kubelet_config(node, kubernetes, authority), indent=2))
    (kubernetes / "kube-proxy.json").write_text(json.dumps(proxy_config(node, kubernetes), indent=2))
    (kubernetes / "containerd.toml").write_text(containerd_config())
    _install_network(node)


def _install_network(node: Node) -> None:
    on_node(node, "mkdir", "-p", CNI_CONFIG, CNI_PLUGINS)
    plugins = [str(plugin) for plugin in DEBIAN_PLUGINS.iterdir() if plugin.is_file()]
    on_node(node, "cp", *plugins, CNI_PLUGINS)
    on_node(node, "tee", f"{CNI_CONFIG}/10-pods.conflist", text=json.dumps(conflist(node), indent=2))


def start_daemon(node: Node, name: str) -> None:
    kubernetes = node.state / "kubernetes"
    arguments = {
        "containerd": ("containerd", "--config", str(kubernetes / "containerd.toml")),
        "kubelet": (
            str(BIN / "kubelet"),
            f"--config={kubernetes}/kubelet.json",
            f"--kubeconfig={kubernetes}/kubelet.kubeconfig",
            f"--hostname-override={node.name}",
            f"--node-ip={','.join(node.addresses)}",
            "--v=2",
        ),
        "kube-proxy": (str(BIN / "kube-proxy"), f"--config={kubernetes}/kube-proxy.json"),
    }
    command = (*entering(node), *arguments[name])
    processes.start(node.cluster, Record(f"{node.name}.{name}", system_group(node), command, forks=True))


def wait_for_containerd(node: Node) -> None:
    processes.wait(f"containerd of {node.name} answers", lambda: on_node(node, "ctr", "version"))


def paths(node: Node) -> dict[str, object]:
    """Where things are. `root` is the node's file system as the machine sees it: prefix any of the node's paths."""
    init = processes.load(node.cluster, f"{node.name}.init")
    cgroup = cgroups.unified()
    return {
        "node": node.name,
        "addresses": node.addresses,
        "init_pid": init.pid,
        "root": f"/proc/{init.pid}/root",
        "network_namespace": f"/run/netns/{node.cluster.namespace(node.name)}",
        "cni_config": CNI_CONFIG,
        "cni_plugins": CNI_PLUGINS,
        "kubelet_root": "/var/lib/kubelet",
        "containerd_socket": CONTAINERD_SOCKET,
        "netns_directory": "/run/netns",
        "bpf_file_system": "/sys/fs/bpf",
        "cgroup_root": str(cgroup / "kubepods"),
        "machine_cgroup_root": str(cgroup / node.group / "kubepods"),
    }
