"""The control plane as a client sees it: where it is, whom to trust, and the own token for every call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PEM = "-----BEGIN"
SYSTEM = "SYSTEM"  # the roots that the transport's library comes with

Metadata = tuple[tuple[str, str], ...]


class ControlError(Exception):
    """The control plane cannot be asked, or refused; the text is one sentence without secrets."""


@dataclass(frozen=True, slots=True)
class Control:
    """A gRPC server of the control plane; `address` is host:port, "" for none."""

    address: str
    root: str  # a file, PEM text, or "SYSTEM"
    alternative_name: str  # the name that the server's certificate has, when it is not the address
    token: str  # a file or the token itself
    headers: Mapping[str, str]


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
