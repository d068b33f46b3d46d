"""What the environment asks of a waypoint: read once, checked, frozen. Names and defaults are Istio's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.model.identity import DEFAULT_TRUST_DOMAIN, SpiffeId
from mesh.model.workload import WorkloadUid
from mesh.runtime import drain, logs
from mesh.runtime.control_plane import Control
from mesh.runtime.environment import Reader, address, duration, log_format, optional_duration, optional_seconds
from waypoint.plan.world import Own

DEFAULT_CONTROLLER = "https://istiod.istio-system.svc:15012"
DEFAULT_ROOT = "./var/run/secrets/istio/root-cert.pem"
DEFAULT_TOKEN = "./var/run/secrets/tokens/istio-token"
MAX_WORKERS = 256


@dataclass(frozen=True, slots=True)
class Config:
    own: Own
    identity: SpiffeId
    pod_name: str
    node_name: str
    instance_ip: str
    cluster_id: str
    xds: Control
    ca: Control
    secret_ttl: float  # seconds, asked of the CA
    listen: str  # the address of all ports but the admin one; "" is all addresses
    workers: int
    drain_deadline: float  # seconds
    log_json: bool
    log_levels: Mapping[str, str]
    access_log: bool


def read(environment: Mapping[str, str]) -> Config:
    """Raises ConfigError."""
    reader = Reader(environment)
    namespace, pod = reader.required("POD_NAMESPACE"), reader.required("POD_NAME")
    gateway = reader.required("GATEWAY_NAME")
    cluster = reader.text("CLUSTER_ID", reader.text("ISTIO_META_CLUSTER_ID", "Kubernetes"))
    account = reader.text("SERVICE_ACCOUNT") or gateway
    identity = SpiffeId(reader.text("TRUST_DOMAIN") or DEFAULT_TRUST_DOMAIN, namespace, account)
    uid = WorkloadUid(f"{cluster}//Pod/{namespace}/{pod}")
    return Config(
        own=Own(namespace, gateway, uid, reader.text("NETWORK"), identity),
        identity=identity,
        pod_name=pod,
        node_name=reader.text("NODE_NAME"),
        instance_ip=reader.text("INSTANCE_IP", "1.1.1.1"),
        cluster_id=cluster,
        xds=_control(reader, "XDS"),
        ca=_control(reader, "CA"),
        secret_ttl=reader.parsed("SECRET_TTL", "24h", duration),
        listen=reader.text("WAYPOINT_LISTEN"),
        workers=reader.parsed("WAYPOINT_WORKERS", "1", _workers),
        drain_deadline=drain.drain_deadline(
            reader.parsed("CONNECTION_TERMINATION_DEADLINE", "", optional_duration),
            reader.parsed("TERMINATION_GRACE_PERIOD_SECONDS", "", optional_seconds),
        ),
        log_json=reader.parsed("LOG_FORMAT", "plain", log_format),
        log_levels=reader.parsed("RUST_LOG", "info", logs.parse_levels),
        access_log=reader.text("ACCESS_LOG", "true").lower() not in ("false", "0"),
    )


def _control(reader: Reader, prefix: str) -> Control:
    return Control(
        address=reader.parsed(f"{prefix}_ADDRESS", DEFAULT_CONTROLLER, address),
        root=reader.text(f"{prefix}_ROOT_CA", DEFAULT_ROOT),
        alternative_name=reader.text(f"ALT_{prefix}_HOSTNAME"),
        token=reader.text("AUTH_TOKEN", DEFAULT_TOKEN),
        headers={name.lower(): value for name, value in reader.prefixed(f"{prefix}_HEADER_").items()},
    )


def _workers(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise ValueError(f"not a number of worker processes from 1 to {MAX_WORKERS}")
    return int(text)
