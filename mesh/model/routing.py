"""What a waypoint serves, as Gateway API says it: which services and workloads, by which routes, under which policies.

These values are what the controller publishes to a waypoint (type `ROUTING_TYPE`, JSON) and what its workers compile
into tables. A reference that could not be resolved stays in place with its reason: the traffic that it would have taken
gets an error, never another backend.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from mesh.model.workload import PolicyKey, ServiceKey


class Resource(Struct, frozen=True, tag=True):
    """Base of what is published, each under `key`; the tag is the class name."""


class AppProtocol(StrEnum):
    """What a service's port speaks: appProtocol, else the prefix of the port's name, else found out by looking."""

    AUTO = "auto"
    HTTP = "http"  # HTTP/1.1, or HTTP/2 with prior knowledge: told apart by the preface
    HTTP2 = "http2"
    GRPC = "grpc"
    TLS = "tls"  # passed through, routed by SNI
    TCP = "tcp"


# --- matches: fields of one match are ANDed, matches of one rule are ORed


class MatchType(StrEnum):
    EXACT = "Exact"
    PREFIX = "PathPrefix"  # whole segments
    REGEX = "RegularExpression"  # RE2 syntax, the whole value


class PathMatch(Struct, frozen=True):
    type: MatchType = MatchType.PREFIX
    value: str = "/"


class ValueMatch(Struct, frozen=True):
    """A header (name in lower case) or a query parameter; of a repeated one the first counts."""

    name: str
    value: str
    type: MatchType = MatchType.EXACT


class HttpMatch(Struct, frozen=True):
    path: PathMatch = PathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    method: str = ""  # "": any


class GrpcMatch(Struct, frozen=True):
    """GRPCMethodMatch; "" is any service or any method."""

    service: str = ""
    method: str = ""
    type: MatchType = MatchType.EXACT
    headers: tuple[ValueMatch, ...] = ()


# --- filters: at most one of each kind on a rule or backend, but any number of mirrors


class HeaderChange(Struct, frozen=True):
    """HTTPHeaderFilter. Order: set, add, remove."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


class PathChange(Struct, frozen=True):
    """HTTPPathModifier: either the whole path, or what the matched prefix becomes."""

    full: str | None = None
    prefix: str | None = None


class Redirect(Struct, frozen=True):
    scheme: str | None = None
    hostname: str | None = None
    path: PathChange | None = None
    port: int | None = None
    status: int = 302


class Rewrite(Struct, frozen=True):
    hostname: str | None = None
    path: PathChange | None = None


class Cors(Struct, frozen=True):
    """HTTPCORSFilter; "*" is a wild card, `max_age` in seconds."""

    allow_origins: tuple[str, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    allow_credentials: bool = False
    max_age: int = 5


class Mirror(Struct, frozen=True):
    backend: Backend
    numerator: int = 100
    denominator: int = 100


class Filters(Struct, frozen=True):
    request_headers: HeaderChange | None = None
    response_headers: HeaderChange | None = None
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    cors: Cors | None = None
    mirrors: tuple[Mirror, ...] = ()
    error: str = ""  # a filter that cannot be applied: every request of the rule gets a 500, for this reason


# --- where to


class Backend(Struct, frozen=True):
    """A backendRef. With an `error` it has its share of the traffic all the same, as a 500 (gRPC: UNAVAILABLE)."""

    service: ServiceKey = ServiceKey("")
    port: int = 0
    weight: int = 1
    filters: Filters = Filters()
    protocol: AppProtocol = AppProtocol.AUTO  # of the service's port
    error: str = ""


class Timeouts(Struct, frozen=True):
    """Seconds; 0 is none. HTTPRouteTimeouts."""

    request: float = 0.0
    backend_request: float = 0.0


class Retry(Struct, frozen=True):
    """HTTPRouteRetry: `attempts` after the first; `backoff` in seconds, the least between two."""

    codes: tuple[int, ...] = ()
    attempts: int = 0
    backoff: float = 0.0


class HttpRule(Struct, frozen=True):
    """`matches` is never empty. No backends and no redirect: a 500."""

    matches: tuple[HttpMatch, ...] = (HttpMatch(),)
    filters: Filters = Filters()
    backends: tuple[Backend, ...] = ()
    timeouts: Timeouts = Timeouts()
    retry: Retry | None = None
    name: str = ""


class GrpcRule(Struct, frozen=True):
    matches: tuple[GrpcMatch, ...] = (GrpcMatch(),)
    filters: Filters = Filters()
    backends: tuple[Backend, ...] = ()
    name: str = ""


class Route(Struct, frozen=True):
    """One HTTPRoute, GRPCRoute, TLSRoute or TCPRoute as it is attached to one port of one service.

    `created` is its creationTimestamp in seconds: of equal matches the oldest route wins, then namespace/name.
    `clients` is the namespace whose clients it is for: that of a consumer route, "" of a producer route.
    Exactly one of the rule fields is not None.
    """

    namespace: str
    name: str
    created: float = 0.0
    clients: str = ""
    http: tuple[HttpRule, ...] | None = None
    grpc: tuple[GrpcRule, ...] | None = None
    tls: tuple[TlsRule, ...] | None = None
    tcp: tuple[TcpRule, ...] | None = None


class TlsRule(Struct, frozen=True):
    """`hostnames`: exact or "*.suffix"; () is any."""

    hostnames: tuple[str, ...] = ()
    backends: tuple[Backend, ...] = ()
    name: str = ""


class TcpRule(Struct, frozen=True):
    backends: tuple[Backend, ...] = ()
    name: str = ""


class PortRouting(Struct, frozen=True):
    """One port of a service. No routes: to the service's own endpoints. With a route nothing else: 404 if none fits."""

    port: int
    protocol: AppProtocol = AppProtocol.AUTO
    routes: tuple[Route, ...] = ()


# --- what is published


class ServiceRouting(Resource, frozen=True):
    """A service that passes the waypoint. `policies` are those that target the service itself."""

    waypoint: str  # "<namespace>/<gateway>"
    service: ServiceKey
    ports: tuple[PortRouting, ...] = ()
    policies: tuple[PolicyKey, ...] = ()

    @property
    def key(self) -> str:
        return f"service//{self.waypoint}//{self.service}"


class Gateway(Resource, frozen=True):
    """The waypoint itself. `policies` hold for all that passes it. A service account that it is bound to limits it to
    workloads of that identity ("" does not); so do `services` and `workloads` by kind of traffic."""

    waypoint: str
    policies: tuple[PolicyKey, ...] = ()
    service_account: str = ""
    services: bool = True  # takes connections to service addresses
    workloads: bool = False  # takes connections to pod addresses
    client_certificate_header: bool = False  # XFCC: ambient.istio.io/xfcc-include-client-identity

    @property
    def key(self) -> str:
        return f"gateway//{self.waypoint}"


def waypoint_group(waypoint: str) -> str:
    """What a waypoint subscribes to: all resources that concern it are in this group."""
    return f"waypoint//{waypoint}"
