"""What must be true of this machine before a local mesh is made: each thing that is not, in one sentence."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from deploy.local import daemon
from deploy.local.addresses import MOST_NODES
from deploy.local.errors import LocalError
from deploy.local.paths import Instance
from ebpf import features

IPV6 = Path("/proc/net/if_inet6")
NFT = "nft"


def check(instance: Instance, nodes: int) -> None:
    """Raises LocalError."""
    if os.geteuid() != 0:
        raise LocalError("a local mesh needs root: it makes network namespaces and loads eBPF programs")
    if not 1 <= nodes <= MOST_NODES:
        raise LocalError(f"a local mesh has 1 to {MOST_NODES} nodes, not {nodes}")
    if daemon.is_running(instance):
        raise LocalError(f"a local mesh ({instance.name}) is running already; stop it with: ambit local down")
    if not IPV6.exists():
        raise LocalError(
            "this kernel runs without IPv6 (ipv6.disable=1): pods and nodes have addresses of both families"
        )
    if shutil.which(NFT) is None:
        raise LocalError("nft is missing: apt-get install nftables (Services need it for pods outside the mesh)")
    missing = features.missing()
    if missing:
        raise LocalError(f"{missing[0].name} is missing: {missing[0].remedy}")
