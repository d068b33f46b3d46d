"""etcd, API server, controller manager and scheduler, in a network namespace of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster import cgroups, processes
from tests.cluster.commands import run
from tests.cluster.pki import Authority, signing_key
from tests.cluster.plan import API_SERVICE, BIN, CONTROL, PODS, SERVICES, Cluster
from tests.cluster.processes import Record

DAEMONS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
ETCD, ETCD_PEERS = "http://127.0.0.1:2379", "http://127.0.0.1:2380"  # loopback of the namespace: nobody else's
SERVICE_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


def directory(cluster: Cluster) -> Path:
    return cluster.state / "control-plane"


def configure(cluster: Cluster, authority: Authority) -> None:
    files, addresses = directory(cluster), cluster.underlay(CONTROL)
    hosts = (*SERVICE_NAMES, "localhost", "127.0.0.1", *addresses, *cluster.families(API_SERVICE))
    authority.write(files, "apiserver", "kube-apiserver", (), hosts)
    authority.write(files, "kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
    for component in ("kube-controller-manager", "kube-scheduler"):
        authority.kubeconfig(files / f"{component}.kubeconfig", cluster.server, f"system:{component}", ())
    authority.kubeconfig(cluster.kubeconfig, cluster.server, "admin", ("system:masters",))
    signing_key(files, "service-accounts")


def start(cluster: Cluster, name: str) -> None:
    group = f"{cluster.name}/control"
    cgroups.create(group)
    net = f"--net=/run/netns/{cluster.namespace('control')}"
    command = ("nsenter", net, "--", *_arguments(cluster, name))
    processes.start(cluster, Record(name, group, command, forks=False))


def _arguments(cluster: Cluster, name: str) -> tuple[str, ...]:
    arguments = {
        "etcd": _etcd,
        "kube-apiserver": _apiserver,
        "kube-controller-manager": _controller_manager,
        "kube-scheduler": _scheduler,
    }
    return arguments[name](cluster)


def _etcd(cluster: Cluster) -> tuple[str, ...]:
    """Without fsync: the data need not outlive the machine, and several clusters share one disk."""
    clients = (f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}")
    return (
        "etcd",
        f"--data-dir={cluster.state}/etcd",
        *clients,
        f"--listen-peer-urls={ETCD_PEERS}",
        "--unsafe-no-fsync",
    )


def _apiserver(cluster: Cluster) -> tuple[str, ...]:
    """Aggregator routing: webhooks are called at their pods, for no kube-proxy runs where the API server does."""
    files = directory(cluster)
    return (
        str(BIN / "kube-apiserver"),
        f"--etcd-servers={ETCD}",
        f"--advertise-address={cluster.underlay(CONTROL)[0]}",
        "--secure-port=6443",
        f"--service-cluster-ip-range={','.join(cluster.families(SERVICES))}",
        f"--tls-cert-file={files}/apiserver.crt",
        f"--tls-private-key-file={files}/apiserver.key",
        f"--client-ca-file={files}/ca.crt",
        f"--kubelet-certificate-authority={files}/ca.crt",
        f"--kubelet-client-certificate={files}/kubelet-client.crt",
        f"--kubelet-client-key={files}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={files}/service-accounts.pub",
        f"--service-account-signing-key-file={files}/service-accounts.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--enable-aggregator-routing=true",
        "--allow-privileged=true",
    )


def _controller_manager(cluster: Cluster) -> tuple[str, ...]:
    files = directory(cluster)
    return (
        str(BIN / "kube-controller-manager"),
        f"--kubeconfig={files}/kube-controller-manager.kubeconfig",
        f"--root-ca-file={files}/ca.crt",
        f"--service-account-private-key-file={files}/service-accounts.key",
        f"--cluster-signing-cert-file={files}/ca.crt",
        f"--cluster-signing-key-file={files}/ca.key",
        f"--cluster-cidr={','.join(cluster.families(PODS))}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
    )


def _scheduler(cluster: Cluster) -> tuple[str, ...]:
    kubeconfig = f"--kubeconfig={directory(cluster)}/kube-scheduler.kubeconfig"
    return (str(BIN / "kube-scheduler"), kubeconfig, "--leader-elect=false")


def kubectl(cluster: Cluster, *arguments: str, text: str | None = None) -> str:
    return run(str(BIN / "kubectl"), f"--kubeconfig={cluster.kubeconfig}", *arguments, text=text)


def wait_until_ready(cluster: Cluster) -> None:
    """Raises ChildProcessError when the API server ends instead, TimeoutError."""
    processes.wait("the API server is ready", lambda: _runs(cluster) and ready(cluster))


def _runs(cluster: Cluster) -> bool:
    if processes.alive(processes.load(cluster, "kube-apiserver")):
        return True
    raise ChildProcessError(f"the API server ended, see {cluster.state}/log/kube-apiserver.log")


def ready(cluster: Cluster) -> bool:
    try:
        return kubectl(cluster, "get", "--raw", "/readyz", "--request-timeout=3s") == "ok"
    except subprocess.CalledProcessError:
        return False
