"""A request as routing sees it, and what can become of it: forwarded, or answered by the waypoint itself."""

from __future__ import annotations

from msgspec import Struct

from mesh.model.address import SocketAddress
from mesh.model.identity import SpiffeId
from mesh.model.routing import AppProtocol, Retry, Timeouts
from mesh.model.workload import ServiceKey

# Names in lower case, in the order in which they came, one pair per field line; without the fields of one hop
# (connection, transfer-encoding, ...) and without host: the authority stands for it.
Headers = tuple[tuple[str, str], ...]


class Request(Struct, frozen=True):
    """Octets are read as Latin-1. `path` and `query` are what `paths.read_target` made of the target; `query` has its
    "?", so that path + query is the target that goes on."""

    method: str
    scheme: str  # of the app's request: "http" or "https"
    authority: str
    path: str
    query: str = ""
    headers: Headers = ()

    @property
    def target(self) -> str:
        return self.path + self.query


class Client(Struct, frozen=True):
    """Whom the waypoint serves: what the tunnel's certificate proved, and where the connection came from."""

    identity: SpiffeId | None
    namespace: str
    address: SocketAddress


class Destination(Struct, frozen=True):
    """A port of a service: to one of its endpoints."""

    service: ServiceKey
    port: int
    protocol: AppProtocol = AppProtocol.AUTO


class HeaderEdit(Struct, frozen=True):
    """What changes in the headers of a request or response: names that go, then lines that come."""

    drop: frozenset[str] = frozenset()
    extra: Headers = ()

    def __call__(self, headers: Headers) -> Headers:
        if not self.drop:
            return headers + self.extra
        return tuple([pair for pair in headers if pair[0] not in self.drop]) + self.extra


class Mirrored(Struct, frozen=True):
    """A copy whose answer nobody waits for."""

    to: Destination
    request: Request


class Forward(Struct, frozen=True):
    """Send `request` to `to`, copies to `mirrors`, and give its response back with `answers` applied in order."""

    to: Destination
    request: Request
    answers: tuple[HeaderEdit, ...] = ()
    mirrors: tuple[Mirrored, ...] = ()
    timeouts: Timeouts = Timeouts()
    retry: Retry | None = None
    route: str = ""  # "<namespace>/<name>", or "" when the service has no route
    rule: str = ""  # its name, or its number from 1

    def answer(self, headers: Headers) -> Headers:
        for change in self.answers:
            headers = change(headers)
        return headers


class Reply(Struct, frozen=True):
    """The waypoint's own response. With `grpc` (a status code of gRPC) it is a response of headers only, status 200.

    `reason` is one sentence: the body, or grpc-message; for the access log in any case.
    """

    status: int
    reason: str
    headers: Headers = ()
    grpc: int | None = None
    route: str = ""
    rule: str = ""
