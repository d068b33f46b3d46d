"""Where a local mesh keeps its things. Everything that `down` must find has its place here.

Several meshes can run side by side (tests do): each instance has its own name, and with it its own directories,
network namespaces, cgroups and eBPF pins. Their networks never meet, so they may use the same addresses.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from deploy.local.errors import LocalError
from ebpf.cgroups import cgroup2_root

DEFAULT_NAME = "ambit"
INSTANCE_VARIABLE = "AMBIT_LOCAL_INSTANCE"
DIRECTORY_VARIABLE = "AMBIT_LOCAL_DIR"
BPF_FILE_SYSTEM = Path("/sys/fs/bpf")
NAMED_NETNS = Path("/run/netns")  # where iproute2 looks, so that `ip netns` shows ours
LONGEST_NETNS_NAME = 63


@dataclass(frozen=True, slots=True)
class NodePaths:
    """The places of one node."""

    name: str
    directory: Path  # runtime: sockets, tokens, sandboxes of pods; gone after a reboot
    state: Path  # what ztunnel keeps: last known mesh, certificates
    cgroup: Path  # eBPF programs are attached here
    pins: Path
    netns: Path

    @property
    def zds_socket(self) -> Path:
        return self.directory / "zds.sock"

    @property
    def token(self) -> Path:
        return self.directory / "token"

    @property
    def fares(self) -> Path:
        """How the processes fare that the node process keeps running."""
        return self.directory / "fares.json"

    @property
    def sandboxes(self) -> Path:
        return self.directory / "pods"

    @property
    def system_cgroup(self) -> Path:
        return self.cgroup / "system"

    def pod_cgroup(self, uid: str) -> Path:
        return self.cgroup / "pods" / uid


@dataclass(frozen=True, slots=True)
class Instance:
    """One local mesh. `state` holds what survives a crash (objects, CA, logs), `runtime` what does not outlive it."""

    name: str
    state: Path
    runtime: Path

    @classmethod
    def named(cls, name: str, directory: Path | None = None) -> Instance:
        """Raises ValueError for a name that could not be part of a file name."""
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
            raise ValueError(f"not a name for a local mesh: {name!r} (lower case letters, digits and dashes, up to 32)")
        if directory is not None:
            return cls(name, directory / "state", directory / "run")
        place = "local" if name == DEFAULT_NAME else name
        return cls(name, Path("/var/lib/ambit") / place, Path("/run/ambit") / place)

    @classmethod
    def current(cls) -> Instance:
        """The one that the environment names, or the default one. Raises LocalError: that is no name."""
        directory = os.environ.get(DIRECTORY_VARIABLE)
        try:
            return cls.named(os.environ.get(INSTANCE_VARIABLE, DEFAULT_NAME), Path(directory) if directory else None)
        except ValueError as error:
            raise LocalError(f"{INSTANCE_VARIABLE}: {error}") from None

    def environment(self) -> dict[str, str]:
        """What a child process needs to find the same instance."""
        place = {DIRECTORY_VARIABLE: str(self.state.parent)} if self.state.name == "state" else {}
        return {INSTANCE_VARIABLE: self.name, **place}

    @property
    def objects(self) -> Path:
        return self.state / "objects"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def controller(self) -> Path:
        return self.state / "controller"

    @property
    def description(self) -> Path:
        """The nodes of this mesh, as JSON; written first of all and removed last: it says that there is something."""
        return self.runtime / "mesh.json"

    @property
    def daemon(self) -> Path:
        """The daemon's process id; locked by it while it lives."""
        return self.runtime / "daemon.pid"

    @property
    def fares(self) -> Path:
        """How the processes fare that the daemon keeps running."""
        return self.runtime / "fares.json"

    @property
    def namespaces(self) -> Path:
        return self.runtime / "netns"

    @property
    def cgroup(self) -> Path:
        return cgroup2_root() / self.name

    @property
    def control_cgroup(self) -> Path:
        return self.cgroup / "control"

    @property
    def pins(self) -> Path:
        return BPF_FILE_SYSTEM / self.name

    @property
    def control(self) -> Path:
        """The network namespace of the controller."""
        return self.netns("control")

    @property
    def underlay(self) -> Path:
        """The network namespace of the bridge that joins the nodes."""
        return self.netns("underlay")

    def netns(self, *parts: str) -> Path:
        return self.namespaces / netns_name(self.name, *parts)

    def node(self, name: str) -> NodePaths:
        return NodePaths(
            name=name,
            directory=self.runtime / "nodes" / name,
            state=self.state / "nodes" / name,
            cgroup=self.cgroup / name,
            pins=self.pins / name,
            netns=self.netns(name),
        )

    def pod_logs(self, namespace: str, pod: str) -> Path:
        return self.logs / "pods" / namespace / pod


def netns_name(*parts: str) -> str:
    """Readable where it fits, and always unique: a long name ends in a digest of itself."""
    name = "-".join(parts)
    if len(name) <= LONGEST_NETNS_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NETNS_NAME - 9]}-{digest}"
