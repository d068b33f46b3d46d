"""What is compiled and what Debian brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# 1.35 and later refuse cgroup v1, also where only the controllers are v1 ("hybrid"), as on many virtual machines.
KUBERNETES = "1.34.4"
COREDNS = "1.14.1"
HELM = "3.19.4"

# etcd, containerd, runc and the CNI plugins run here; kube-proxy needs nft, portmap iptables, the conntrack of old
# connections conntrack; `nsenter`, `unshare` and `ip` make nodes.
PACKAGES = {
    "containerd": "/usr/bin/containerd",
    "runc": "/usr/sbin/runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "etcd-server": "/usr/bin/etcd",
    "iptables": "/usr/sbin/iptables",
    "nftables": "/usr/sbin/nft",
    "conntrack": "/usr/sbin/conntrack",
    "iproute2": "/usr/bin/ip",
    "util-linux": "/usr/bin/nsenter",
    "kmod": "/usr/bin/kmod",
}

_COMPONENT = "k8s.io/component-base/version"
_KUBERNETES_MAJOR, _KUBERNETES_MINOR, _ = KUBERNETES.split(".")


@dataclass(frozen=True)
class Program:
    """A program that is compiled: its folder under go/, what it is, the package, its linker flags and other names."""

    name: str
    title: str
    package: str
    duration: str
    variables: tuple[str, ...] = ()
    links: tuple[str, ...] = ()

    @property
    def source(self) -> Path:
        return Path(__file__).parent / "go" / self.name


PROGRAMS = (
    Program("pause", "the first process of pods", ".", "a few seconds"),
    Program("probe", "a program for pods of tests", ".", "half a minute"),
    Program(
        "kubernetes",
        f"Kubernetes {KUBERNETES}",
        ".",
        "4 to 10 minutes on two cores the first time",
        variables=(
            f"{_COMPONENT}.gitVersion=v{KUBERNETES}",
            f"{_COMPONENT}.gitMajor={_KUBERNETES_MAJOR}",
            f"{_COMPONENT}.gitMinor={_KUBERNETES_MINOR}",
        ),
        links=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"),
    ),
    Program("coredns", f"CoreDNS {COREDNS}", "github.com/coredns/coredns", "1 to 2 minutes"),
    Program(
        "helm",
        f"helm {HELM}",
        "helm.sh/helm/v3/cmd/helm",
        "1 to 2 minutes",
        # As its own Makefile has it: `helm template` and `helm lint` ask no cluster which Kubernetes to expect.
        variables=(
            f"helm.sh/helm/v3/internal/version.version=v{HELM}",
            *(
                f"helm.sh/helm/v3/pkg/{package}.k8sVersion{part}={number}"
                for package in ("chartutil", "lint/rules")
                for part, number in (("Major", _KUBERNETES_MAJOR), ("Minor", _KUBERNETES_MINOR))
            ),
        ),
    ),
)
