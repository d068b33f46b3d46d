"""What runs in pods from the start: CoreDNS."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.control_plane import kubectl
from tests.cluster.image_archive import make_image
from tests.cluster.plan import BIN, CLUSTER_DNS, Cluster
from tests.cluster.versions import COREDNS

COREDNS_IMAGE = f"registry.k8s.io/coredns/coredns:v{COREDNS}"
MANIFEST = Path(__file__).with_name("coredns.yaml")


def make_coredns(archive: Path) -> None:
    make_image(archive, COREDNS_IMAGE, ("/coredns",), {"/coredns": BIN / "coredns"})


def install_coredns(cluster: Cluster) -> None:
    addresses = cluster.families(CLUSTER_DNS)
    text = MANIFEST.read_text().replace("COREDNS_IMAGE", COREDNS_IMAGE)
    text = text.replace("FIRST_ADDRESS", addresses[0]).replace("ADDRESSES", json.dumps(addresses))
    kubectl(cluster, "apply", "-f", "-", text=text)


def coredns_ready(cluster: Cluster) -> bool:
    path = "jsonpath={.status.readyReplicas}"
    return kubectl(cluster, "-n", "kube-system", "get", "deployment", "coredns", "-o", path) == "1"
