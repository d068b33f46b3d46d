"""What the environment asks of the agent: read once, checked, frozen. Names and defaults are Istio's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mesh.model.identity import DEFAULT_TRUST_DOMAIN
from mesh.runtime import drain, logs
from mesh.runtime.control_plane import Control
from mesh.runtime.environment import (
    Reader,
    address,
    boolean,
    duration,
    log_format,
    optional_duration,
    optional_seconds,
)

DEFAULT_CONTROLLER = "https://istiod.istio-system.svc:15012"
DEFAULT_ROOT = "./var/run/secrets/istio/root-cert.pem"
DEFAULT_TOKEN = "./var/run/secrets/tokens/istio-token"
DEFAULT_ZDS = "/var/run/ztunnel/ztunnel.sock"
MAX_WORKERS = 256
SHORTEST_TTL = 1.0  # seconds; anything below would renew without end
SHORTEST_PATIENCE = 1.0  # seconds: a worker that is asked more often does little else


@dataclass(frozen=True, slots=True)
class Node:
    """Who this ztunnel is."""

    name: str
    cluster_id: str
    cluster_domain: str
    trust_domain: str
    network: str
    instance_ip: str
    pod_name: str
    pod_namespace: str
    metadata: Mapping[str, str]  # ISTIO_META_*, without the prefix
    json_metadata: Mapping[str, str]  # ISTIO_METAJSON_*


@dataclass(frozen=True, slots=True)
class Inpod:
    """The pods of this node."""

    zds_path: Path
    bpf_pins: Path
    port_reuse: bool
    ipv6: bool


@dataclass(frozen=True, slots=True)
class Process:
    workers: int
    worker_patience: float  # seconds that a worker may give no sign of life before it is replaced
    drain_deadline: float  # seconds
    state_directory: Path | None  # None: nothing is kept across restarts
    log_json: bool
    log_levels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Config:
    node: Node
    xds: Control
    ca: Control
    secret_ttl: float  # seconds, asked of the CA
    inpod: Inpod
    process: Process


def read(environment: Mapping[str, str]) -> Config:
    """Raises ConfigError."""
    reader = Reader(environment)
    return Config(
        node=_node(reader),
        xds=_control(reader, "XDS"),
        ca=_control(reader, "CA"),
        secret_ttl=reader.parsed("SECRET_TTL", "24h", _ttl),
        inpod=_inpod(reader),
        process=_process(reader),
    )


def _node(reader: Reader) -> Node:
    return Node(
        name=reader.required("NODE_NAME"),
        cluster_id=reader.text("CLUSTER_ID", reader.text("ISTIO_META_CLUSTER_ID", "Kubernetes")),
        cluster_domain=reader.text("CLUSTER_DOMAIN", "cluster.local"),
        trust_domain=reader.text("TRUST_DOMAIN", DEFAULT_TRUST_DOMAIN),
        network=reader.text("NETWORK"),
        instance_ip=reader.text("INSTANCE_IP", "1.1.1.1"),
        pod_name=reader.text("POD_NAME", "ztunnel"),
        pod_namespace=reader.text("POD_NAMESPACE", "ambit-system"),
        metadata=reader.prefixed("ISTIO_META_"),
        json_metadata=reader.prefixed("ISTIO_METAJSON_"),
    )


def _control(reader: Reader, prefix: str) -> Control:
    return Control(
        address=reader.parsed(f"{prefix}_ADDRESS", DEFAULT_CONTROLLER, address),
        root=reader.text(f"{prefix}_ROOT_CA", DEFAULT_ROOT),
        alternative_name=reader.text(f"ALT_{prefix}_HOSTNAME"),
        token=reader.text("AUTH_TOKEN", DEFAULT_TOKEN),
        headers={name.lower(): value for name, value in reader.prefixed(f"{prefix}_HEADER_").items()},
    )


def _inpod(reader: Reader) -> Inpod:
    return Inpod(
        zds_path=Path(reader.text("INPOD_UDS", DEFAULT_ZDS)),
        bpf_pins=Path(reader.required("AMBIT_BPF_PINS")),
        port_reuse=reader.parsed("INPOD_PORT_REUSE", "true", boolean),
        ipv6=reader.parsed("IPV6_ENABLED", "true", boolean),
    )


def _process(reader: Reader) -> Process:
    state = reader.text("AMBIT_STATE_DIR")
    return Process(
        workers=reader.parsed("ZTUNNEL_WORKERS", "1", _workers),
        worker_patience=reader.parsed("AMBIT_WORKER_PATIENCE", "30s", _patience),
        drain_deadline=drain.drain_deadline(
            reader.parsed("CONNECTION_TERMINATION_DEADLINE", "", optional_duration),
            reader.parsed("TERMINATION_GRACE_PERIOD_SECONDS", "", optional_seconds),
        ),
        state_directory=Path(state) if state else None,
        log_json=reader.parsed("LOG_FORMAT", "plain", log_format),
        log_levels=reader.parsed("RUST_LOG", "info", logs.parse_levels),
    )


def _ttl(text: str) -> float:
    seconds = duration(text)
    if seconds < SHORTEST_TTL:
        raise ValueError(f"shorter than {SHORTEST_TTL:g} s")
    return seconds


def _patience(text: str) -> float:
    seconds = duration(text)
    if seconds < SHORTEST_PATIENCE:
        raise ValueError(f"shorter than {SHORTEST_PATIENCE:g} s")
    return seconds


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise ValueError(f"not a number of worker processes from 1 to {MAX_WORKERS}")
    return int(text)
