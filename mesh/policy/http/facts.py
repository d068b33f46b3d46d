"""What is known of a request when policy decides on it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from msgspec import Struct

from mesh.model.address import Ip, canonical
from mesh.policy.http.path import readings
from mesh.policy.match import ConnectionFacts


class RequestFacts(Struct, frozen=True, dict=True):
    """A request to a service or workload.

    `connection`: the client's address, where it goes, and the identity that TLS has proved. `path` is canonical and
    without query, `headers` have names in lower case. `trusted_hops` is how many proxies before the mesh may be
    believed about X-Forwarded-For (Istio's numTrustedProxies). A connection that is not HTTP has no method.
    """

    connection: ConnectionFacts
    method: str = ""
    authority: str = ""
    path: str = "/"
    headers: Sequence[tuple[str, str]] = ()
    sni: str = ""
    trusted_hops: int = 0

    @property
    def is_http(self) -> bool:
        return self.method != ""

    @cached_property
    def paths(self) -> tuple[str, ...]:
        return readings(self.path)

    @cached_property
    def host(self) -> tuple[str, str]:
        """The authority's name in lower case, alone and with its port (else the port that is dialled)."""
        name, colon, port = self.authority.lower().rpartition(":")
        if not colon or port.endswith("]"):
            name, port = self.authority.lower(), ""
        name = name.rstrip(".")
        return name, f"{name}:{port or self.connection.destination.port}"

    def header(self, name: str) -> tuple[str | None, ...]:
        """The values that an app may take for this header: each field line, and all of them joined. None stands for an
        app that sees no such header: gateways after CGI's fashion take "X_Role" for "X-Role", others do not.
        """
        own = tuple([value for key, value in self.headers if key == name])
        alike = hyphened(name)
        others = tuple([value for key, value in self.headers if key != name and hyphened(key) == alike])
        if not others:
            return _joined(own)
        return (*(_joined(own) or (None,)), *_joined(own + others))

    @cached_property
    def remote(self) -> Ip:
        return remote_address(self.connection.source, self.header_lines("x-forwarded-for"), self.trusted_hops)

    def header_lines(self, name: str) -> tuple[str, ...]:
        return tuple([value for key, value in self.headers if key == name])


def hyphened(name: str) -> str:
    return name.replace("_", "-")


def _joined(values: tuple[str, ...]) -> tuple[str, ...]:
    return values if len(values) < 2 else (*values, ",".join(values), ", ".join(values))


def remote_address(source: Ip, forwarded_for: Sequence[str], trusted_hops: int) -> Ip:
    """Where a request began: the address that the outermost trusted proxy saw.

    As Envoy with xff_num_trusted_hops: that many from the right of X-Forwarded-For. The address of the connection when
    nobody is trusted, or the header says too little.
    """
    if trusted_hops <= 0:
        return source
    addresses = ",".join(forwarded_for).split(",")
    try:
        return canonical(addresses[-trusted_hops].strip())
    except (IndexError, ValueError):
        return source
