"""How the agent reaches the control plane: gRPC over TLS."""

from __future__ import annotations

import grpc
import grpc.aio

from mesh.runtime.control_plane import Control, roots
from mesh.wire.services import MAX_MESSAGE_BYTES

OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),  # who calls knows better when to try again
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection, with the roots of now
)


def open_channel(control: Control) -> grpc.aio.Channel:
    """Reads the roots anew. Raises ControlError."""
    options = list(OPTIONS)
    if control.alternative_name:
        options.append(("grpc.ssl_target_name_override", control.alternative_name))
    credentials = grpc.ssl_channel_credentials(roots(control))
    return grpc.aio.secure_channel(control.address, credentials, options=options)


def describe(error: grpc.aio.AioRpcError) -> str:
    """A gRPC failure in words: "UNAVAILABLE: connection refused"."""
    return f"{error.code().name}: {error.details()}" if error.details() else error.code().name
