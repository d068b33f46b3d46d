"""The configuration files of a node, as values."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.pki import Authority
from tests.cluster.plan import CLUSTER_DNS, PODS, Node

PAUSE_IMAGE = "registry.k8s.io/pause:local"


def conflist(node: Node) -> dict[str, object]:
    """The cluster's own pod network; a chained plugin is added to `plugins` by whoever installs one."""
    everywhere = node.cluster.families(("0.0.0.0/0", "::/0"))
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet}] for subnet in node.pods],
        "routes": [{"dst": destination} for destination in everywhere],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def containerd_config() -> str:
    """`restrict_oom_score_adj`: a machine that is itself a container may not lower the scores that pods ask for."""
    return f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
"""


def kubelet_config(node: Node, directory: Path, authority: Authority) -> dict[str, object]:
    """KubeletConfiguration v1beta1. Pods that ask for the node's name servers get none: there are none to be had.

    Images are never collected, for there is no registry to pull them from again.
    """
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "::" if node.cluster.dual_stack else "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "10s"},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(directory / "kubelet.crt"),
        "tlsPrivateKeyFile": str(directory / "kubelet.key"),
        "cgroupDriver": "cgroupfs",
        "failSwapOn": False,
        "failCgroupV1": False,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": list(node.cluster.families(CLUSTER_DNS)),
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "localStorageCapacityIsolation": False,
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
        "registerNode": True,
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "shutdownGracePeriod": "0s",
    }


def proxy_config(node: Node, directory: Path) -> dict[str, object]:
    """KubeProxyConfiguration v1alpha1; connection tracking limits are the machine's and stay as they are."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(directory / "kube-proxy.kubeconfig")},
        "hostnameOverride": node.name,
        "clusterCIDR": ",".join(node.cluster.families(PODS)),
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nodePortAddresses": ["primary"],
    }
