"""A CONNECT request as a value: where the tunnel shall lead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.model.address import SocketAddress, canonical, is_ip, split_authority


class BadRequest(ValueError):
    """A well-formed HTTP request that asks for no tunnel: the answer is 400."""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """Host (an IP address without brackets, or a name in lower case), port, and the request's other fields."""

    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> SocketAddress | None:
        """The destination, when the host is an IP address."""
        return SocketAddress(canonical(self.host), self.port) if is_ip(self.host) else None

    @classmethod
    def parse(cls, headers: Mapping[str, str]) -> ConnectRequest:
        """From what `Handler.request_received` gets. Raises BadRequest, which says why."""
        method = headers.get(":method", "")
        if method != "CONNECT":
            raise BadRequest(f"the method is {method}, not CONNECT")
        try:
            host, port = split_authority(headers.get(":authority", ""))
        except ValueError as error:
            raise BadRequest(f":authority is no host and port: {error}") from None
        return cls(host.lower(), port, {name: value for name, value in headers.items() if name[0] != ":"})
