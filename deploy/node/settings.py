"""What the environment asks of the node agent: read once, checked, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh.model import ports
from mesh.model.enrolment import EXCLUDED_NAMESPACES, SYSTEM_NAMESPACE
from mesh.runtime import logs

AUTO = "auto"
RUN = Path("/var/run/ambit")
KEPT = Path("/var/lib/ambit/node")  # over a reboot too: pods start before this agent does
STATE = Path("/var/lib/ambit/node")  # what must survive a reboot
LONGEST_ADMISSION = 25.0  # seconds; the plugin waits 30 (deploy/cni), and the kubelet tries again after a refusal


class SettingsError(Exception):
    """A variable has a value that cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`kubepods` None: to be looked for. `objects` None: Kubernetes; a directory of manifests otherwise."""

    node: str
    pins: Path
    zds_socket: Path
    cni_socket: Path
    enrolled_namespaces: Path
    host_root: Path  # below which the paths are that the CNI plugin tells, as this process sees the host's files
    kubepods: Path | None
    excluded: frozenset[str]
    objects: Path | None
    kubeconfig: Path | None
    address: str | None  # of the metrics and readiness server; None: all
    port: int
    log_json: bool
    log_levels: Mapping[str, str]


def read(environment: Mapping[str, str]) -> Settings:
    """Raises SettingsError."""

    def text(name: str, default: str = "") -> str:
        return environment.get(name, "").strip() or default

    def path(name: str, default: str | Path) -> Path:
        found = Path(text(name, str(default)))
        if not found.is_absolute():
            raise SettingsError(f"{name}={found}: the path must be absolute")
        return found

    node = text("NODE_NAME")
    if not node:
        raise SettingsError("NODE_NAME is not set: it names the node whose pods this agent enrols")
    kubeconfig = text("KUBECONFIG")
    cgroup = text("AMBIT_CGROUP", AUTO)
    excluded = text("AMBIT_EXCLUDED_NAMESPACES", ",".join(sorted({*EXCLUDED_NAMESPACES, SYSTEM_NAMESPACE})))
    return Settings(
        node=node,
        pins=path("AMBIT_BPF_PINS", "/sys/fs/bpf/ambit"),
        zds_socket=path("INPOD_UDS", RUN / "ztunnel.sock"),
        cni_socket=path("AMBIT_CNI_SOCKET", RUN / "cni.sock"),
        enrolled_namespaces=path("AMBIT_ENROLLED_NAMESPACES", STATE / "enrolled-namespaces"),
        host_root=path("AMBIT_HOST_ROOT", "/"),
        kubepods=None if cgroup == AUTO else path("AMBIT_CGROUP", AUTO),
        excluded=frozenset(filter(None, (name.strip() for name in excluded.split(",")))),
        objects=_objects(text("AMBIT_STORE", "kubernetes")),
        kubeconfig=Path(kubeconfig) if kubeconfig else None,
        address=text("AMBIT_NODE_ADDRESS") or None,
        port=_port("AMBIT_NODE_PORT", text("AMBIT_NODE_PORT", str(ports.NODE_AGENT))),
        log_json=text("LOG_FORMAT") == "json",
        log_levels=_levels(text("RUST_LOG", "info")),
    )


def _objects(text: str) -> Path | None:
    if text == "kubernetes":
        return None
    kind, _, directory = text.partition(":")
    if kind != "directory" or not directory:
        raise SettingsError(f"AMBIT_STORE={text}: it is kubernetes, or directory:PATH")
    return Path(directory)


def _port(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise SettingsError(f"{name}={text}: it is a port, 1 to 65535")
    return int(text)


def _levels(text: str) -> Mapping[str, str]:
    try:
        return logs.parse_levels(text)
    except ValueError as error:
        raise SettingsError(f"RUST_LOG: {error}") from error
