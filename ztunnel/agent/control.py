"""How the agent reaches the control plane: gRPC over TLS, with the node's own token on every call."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio

from mesh.wire.services import MAX_MESSAGE_BYTES
from ztunnel.agent.config import Control

PEM = "-----BEGIN"
SYSTEM = "SYSTEM"  # the roots that the gRPC library ships with

OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),  # who calls knows better when to try again
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, with the roots of now
)

Metadata = tuple[tuple[str, str], ...]


class ControlError(Exception):
    """The control plane cannot be asked, or refused; the text is one sentence without secrets."""


def open_channel(control: Control) -> grpc.aio.Channel:
    """Reads the roots anew. Raises ControlError."""
    options = list(OPTIONS)
    if control.alternative_name:
        options.append(("grpc.ssl_target_name_override", control.alternative_name))
    credentials = grpc.ssl_channel_credentials(roots(control))
    return grpc.aio.secure_channel(control.address, credentials, options=options)


def roots(control: Control) -> bytes | None:
    """The PEM certificates that the server is verified against; None for those of the system. Raises ControlError."""
    if control.root == SYSTEM:
        return None
    if PEM in control.root:
        return control.root.encode()
    try:
        return Path(control.root).read_bytes()
    except OSError as error:
        raise ControlError(f"cannot read the root certificate {control.root}: {error.strerror}") from error


def metadata(control: Control, cluster_id: str) -> Metadata:
    """Of one call; the token file is read each time because its content is rotated. Raises ControlError."""
    return (
        ("authorization", f"Bearer {_token(control.token)}"),
        ("clusterid", cluster_id),
        *control.headers.items(),
    )


def _token(source: str) -> str:
    if "/" not in source:
        return source.strip()
    try:
        token = Path(source).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ControlError(f"cannot read the token file {source}: {getattr(error, 'strerror', error)}") from error
    if not token:
        raise ControlError(f"the token file {source} is empty")
    return token


def describe(error: grpc.aio.AioRpcError) -> str:
    """A gRPC failure in words: "UNAVAILABLE: connection refused"."""
    return f"{error.code().name}: {error.details()}" if error.details() else error.code().name
