"""The parts of a local mesh as programs: what is run, where, with which environment. Pure."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from controller.authority.tokens import KEY_FILE
from deploy.local.addresses import CONTROL, NodeAddresses
from deploy.local.entry import Entry
from deploy.local.paths import Instance
from deploy.local.supervise import Program
from mesh.model.address import SocketAddress
from mesh.model.ports import CONTROLLER

PYTHON = (sys.executable,)
ROOT = Path(__file__).resolve().parents[2]
CLUSTER_DOMAIN = "cluster.local"
CLUSTER_ID = "Kubernetes"
TRUST_DOMAIN = "cluster.local"
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "RUST_LOG", "LOG_FORMAT", "BCC_KERNEL_SOURCE", "SECRET_TTL")
DRAIN = 3  # seconds: the grace period that ztunnel is told of; on one machine nobody wants to wait longer

CONTROLLER_ADDRESS = SocketAddress(CONTROL.v4, CONTROLLER)


def environment(instance: Instance, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Of every part: its instance, and little else of what the person who started it had."""
    kept = {name: given[name] for name in PASSED_ON if name in given}
    return {**kept, **instance.environment(), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def controller(instance: Instance) -> Program:
    command = [*PYTHON, "-m", "controller"]
    command += ["--store", f"directory:{instance.objects}", "--state", str(instance.controller)]
    command += ["--listen", str(CONTROLLER_ADDRESS), "--trust-domain", TRUST_DOMAIN, "--cluster-id", CLUSTER_ID]
    entry = Entry(
        command=command,
        environment=environment(instance),
        working_directory=str(ROOT),
        cgroup=str(instance.control_cgroup),
        netns=str(instance.control),
    )
    return Program("controller", entry, instance.logs / "controller.log")


def node(instance: Instance, name: str) -> Program:
    """The node process stays in the machine's network, and out of the node's cgroup: what it dials (probes, the
    machine's resolvers) is not the node's traffic, so it is never captured."""
    entry = Entry(
        command=[*PYTHON, "-m", "deploy.local.node", "--name", name],
        environment=environment(instance),
        working_directory=str(ROOT),
        cgroup=str(instance.control_cgroup),
    )
    return Program(name, entry, instance.logs / f"{name}.log")


def ztunnel(instance: Instance, addresses: NodeAddresses) -> Program:
    paths = instance.node(addresses.name)
    control = f"https://{CONTROLLER_ADDRESS}"
    root = str(instance.controller / "ca" / "root-cert.pem")
    settings = {
        "NODE_NAME": addresses.name,
        "XDS_ADDRESS": control,
        "CA_ADDRESS": control,
        "XDS_ROOT_CA": root,
        "CA_ROOT_CA": root,
        "AUTH_TOKEN": str(paths.token),
        "INPOD_UDS": str(paths.zds_socket),
        "CLUSTER_ID": CLUSTER_ID,
        "CLUSTER_DOMAIN": CLUSTER_DOMAIN,
        "TRUST_DOMAIN": TRUST_DOMAIN,
        "INSTANCE_IP": addresses.address.v4,
        "ZTUNNEL_WORKERS": "1",
        "TERMINATION_GRACE_PERIOD_SECONDS": str(DRAIN),
        "AMBIT_BPF_PINS": str(paths.pins),
        "AMBIT_STATE_DIR": str(paths.state),
    }
    entry = Entry(
        command=[*PYTHON, "-m", "ztunnel.agent"],
        environment=environment(instance) | settings,
        working_directory=str(ROOT),
        cgroup=str(paths.system_cgroup),
        netns=str(paths.netns),
    )
    log = instance.logs / f"{addresses.name}-ztunnel.log"
    return Program(f"{addresses.name}-ztunnel", entry, log, paths.directory / "ztunnel.pid")


def loader(instance: Instance, name: str) -> list[str]:
    """The command that loads a node's eBPF programs, or swaps them. Run it in `ROOT`."""
    paths = instance.node(name)
    command = ["/usr/bin/python3", "-m", "ebpf.loader", "load"]
    return [*command, "--pins", str(paths.pins), "--cgroup", str(paths.cgroup)]


def token_key(instance: Instance) -> Path:
    return instance.controller / KEY_FILE
