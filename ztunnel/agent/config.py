"""What the environment asks of the agent: read once, checked, frozen. Names and defaults are Istio's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mesh.runtime import drain, logs

Value = TypeVar("Value")

DEFAULT_CONTROLLER = "https://istiod.istio-system.svc:15012"
DEFAULT_ROOT = "./var/run/secrets/istio/root-cert.pem"
DEFAULT_TOKEN = "./var/run/secrets/tokens/istio-token"
DEFAULT_ZDS = "/var/run/ztunnel/ztunnel.sock"
MAX_WORKERS = 256
SHORTEST_TTL = 1.0  # seconds; anything below would renew without end
SHORTEST_PATIENCE = 1.0  # seconds: a worker that is asked more often does little else

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class ConfigError(Exception):
    """A variable has a value that cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class Node:
    """Who this ztunnel is."""

    name: str
    cluster_id: str
    cluster_domain: str
    network: str
    instance_ip: str
    pod_name: str
    pod_namespace: str
    metadata: Mapping[str, str]  # ISTIO_META_*, without the prefix
    json_metadata: Mapping[str, str]  # ISTIO_METAJSON_*


@dataclass(frozen=True, slots=True)
class Control:
    """A gRPC server of the control plane; `address` is host:port, "" for none."""

    address: str
    root: str  # a file, PEM text, or "SYSTEM"
    alternative_name: str  # the name that the server's certificate has, when it is not the address
    token: str  # a file or the token itself
    headers: Mapping[str, str]


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
    reader = _Reader(environment)
    return Config(
        node=_node(reader),
        xds=_control(reader, "XDS"),
        ca=_control(reader, "CA"),
        secret_ttl=reader.parsed("SECRET_TTL", "24h", _ttl),
        inpod=_inpod(reader),
        process=_process(reader),
    )


def _node(reader: _Reader) -> Node:
    return Node(
        name=reader.required("NODE_NAME"),
        cluster_id=reader.text("CLUSTER_ID", reader.text("ISTIO_META_CLUSTER_ID", "Kubernetes")),
        cluster_domain=reader.text("CLUSTER_DOMAIN", "cluster.local"),
        network=reader.text("NETWORK"),
        instance_ip=reader.text("INSTANCE_IP", "1.1.1.1"),
        pod_name=reader.text("POD_NAME", "ztunnel"),
        pod_namespace=reader.text("POD_NAMESPACE", "ambit-system"),
        metadata=reader.prefixed("ISTIO_META_"),
        json_metadata=reader.prefixed("ISTIO_METAJSON_"),
    )


def _control(reader: _Reader, prefix: str) -> Control:
    return Control(
        address=reader.parsed(f"{prefix}_ADDRESS", DEFAULT_CONTROLLER, _address),
        root=reader.text(f"{prefix}_ROOT_CA", DEFAULT_ROOT),
        alternative_name=reader.text(f"ALT_{prefix}_HOSTNAME"),
        token=reader.text("AUTH_TOKEN", DEFAULT_TOKEN),
        headers={name.lower(): value for name, value in reader.prefixed(f"{prefix}_HEADER_").items()},
    )


def _inpod(reader: _Reader) -> Inpod:
    return Inpod(
        zds_path=Path(reader.text("INPOD_UDS", DEFAULT_ZDS)),
        bpf_pins=Path(reader.required("AMBIT_BPF_PINS")),
        port_reuse=reader.parsed("INPOD_PORT_REUSE", "true", _boolean),
        ipv6=reader.parsed("IPV6_ENABLED", "true", _boolean),
    )


def _process(reader: _Reader) -> Process:
    state = reader.text("AMBIT_STATE_DIR")
    return Process(
        workers=reader.parsed("ZTUNNEL_WORKERS", "1", _workers),
        worker_patience=reader.parsed("AMBIT_WORKER_PATIENCE", "30s", _patience),
        drain_deadline=drain.drain_deadline(
            reader.parsed("CONNECTION_TERMINATION_DEADLINE", "", _optional_duration),
            reader.parsed("TERMINATION_GRACE_PERIOD_SECONDS", "", _optional_seconds),
        ),
        state_directory=Path(state) if state else None,
        log_json=reader.parsed("LOG_FORMAT", "plain", _log_format),
        log_levels=reader.parsed("RUST_LOG", "info", logs.parse_levels),
    )


class _Reader:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str = "") -> str:
        return self._environment.get(name, default)

    def required(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise ConfigError(f"{name} is not set")
        return value

    def prefixed(self, prefix: str) -> dict[str, str]:
        return {
            name.removeprefix(prefix): value for name, value in self._environment.items() if name.startswith(prefix)
        }

    def parsed(self, name: str, default: str, parse: Callable[[str], Value]) -> Value:
        value = self.text(name, default)
        try:
            return parse(value)
        except ValueError as error:
            raise ConfigError(f"{name}={value!r}: {error}") from error


def duration(text: str) -> float:
    """Seconds from "24h", "1m30s", "500ms". Raises ValueError."""
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        raise ValueError("not a duration such as 30s, 5m or 24h")
    return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h)", text))


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


def _optional_duration(text: str) -> float | None:
    return duration(text) if text else None


def _optional_seconds(text: str) -> float | None:
    if text and not re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError("not a number of seconds")
    return float(text) if text else None


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError("neither true nor false")
    return text.lower() in ("true", "1")


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise ValueError(f"not a number of worker processes from 1 to {MAX_WORKERS}")
    return int(text)


def _log_format(text: str) -> bool:
    if text not in ("json", "plain", "text"):
        raise ValueError("neither json nor plain")
    return text == "json"


def _address(text: str) -> str:
    if not text:
        return ""
    if text.startswith("http://"):
        raise ValueError("the control plane is reached over TLS only: use https://HOST:PORT")
    host, colon, port = text.removeprefix("https://").rstrip("/").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("not of the form https://HOST:PORT")
    return f"{host}:{port}"
