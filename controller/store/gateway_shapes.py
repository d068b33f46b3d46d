"""The Gateway API's objects as manifests have them (gateway-api apis/v1; the fields of all channels).

Enumerations that may grow (types of filters and matches, protocols) are text here: what is not known is refused where
it is used, with a condition, and not while it is read.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, field, json

from controller.store.shapes import AnyObject, LabelSelector, Port, Shape

GROUP = "gateway.networking.k8s.io"
Weight = Annotated[int, Meta(ge=0, le=1_000_000)]
Percent = Annotated[int, Meta(ge=0, le=100)]


class ParentReference(Shape, frozen=True):
    name: str
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str = ""
    section_name: str = ""
    port: Port | None = None


class ObjectReference(Shape, frozen=True):
    """BackendObjectReference: a Service, unless it says otherwise."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str = ""
    port: Port | None = None


class HttpHeader(Shape, frozen=True):
    name: str
    value: str


class HeaderFilter(Shape, frozen=True):
    set: tuple[HttpHeader, ...] = ()
    add: tuple[HttpHeader, ...] = ()
    remove: tuple[str, ...] = ()


class PathModifier(Shape, frozen=True):
    type: str
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RedirectFilter(Shape, frozen=True):
    scheme: str | None = None
    hostname: str | None = None
    path: PathModifier | None = None
    port: Port | None = None
    status_code: int = 302


class RewriteFilter(Shape, frozen=True):
    hostname: str | None = None
    path: PathModifier | None = None


class Fraction(Shape, frozen=True):
    numerator: Annotated[int, Meta(ge=0)]
    denominator: Annotated[int, Meta(ge=1)] = 100


class MirrorFilter(Shape, frozen=True):
    backend_ref: ObjectReference
    percent: Percent | None = None
    fraction: Fraction | None = None


class CorsFilter(Shape, frozen=True):
    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool = False
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: Annotated[int, Meta(ge=1)] = 5


class RouteFilter(Shape, frozen=True):
    """HTTPRouteFilter and GRPCRouteFilter: `type` says which of the fields counts."""

    type: str
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    request_redirect: RedirectFilter | None = None
    url_rewrite: RewriteFilter | None = None
    cors: CorsFilter | None = None
    extension_ref: Any = None


class BackendReference(ObjectReference, frozen=True):
    weight: Weight = 1
    filters: tuple[RouteFilter, ...] = ()


class PathMatch(Shape, frozen=True):
    type: str = "PathPrefix"
    value: str = "/"


class ValueMatch(Shape, frozen=True):
    name: str
    value: str
    type: str = "Exact"


class HttpMatch(Shape, frozen=True):
    path: PathMatch = PathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()
    method: str = ""


class MethodMatch(Shape, frozen=True):
    type: str = "Exact"
    service: str = ""
    method: str = ""


class GrpcMatch(Shape, frozen=True):
    method: MethodMatch = MethodMatch()
    headers: tuple[ValueMatch, ...] = ()


class Timeouts(Shape, frozen=True):
    request: str = "0s"
    backend_request: str = "0s"


class Retry(Shape, frozen=True):
    codes: tuple[int, ...] = ()
    attempts: Annotated[int, Meta(ge=0)] | None = None
    backoff: str = "0s"


class Rule(Shape, frozen=True):
    name: str = ""
    backend_refs: tuple[BackendReference, ...] = ()


class HttpRule(Rule, frozen=True):
    matches: tuple[HttpMatch, ...] = ()
    filters: tuple[RouteFilter, ...] = ()
    timeouts: Timeouts = Timeouts()
    retry: Retry | None = None
    session_persistence: Any = None


class GrpcRule(Rule, frozen=True):
    matches: tuple[GrpcMatch, ...] = ()
    filters: tuple[RouteFilter, ...] = ()
    session_persistence: Any = None


class RouteSpec(Shape, frozen=True):
    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()


class HttpRouteSpec(RouteSpec, frozen=True):
    # As the CRD has it: a route without rules sends everything to no backend.
    rules: tuple[HttpRule, ...] = (HttpRule(),)


class GrpcRouteSpec(RouteSpec, frozen=True):
    rules: tuple[GrpcRule, ...] = ()


class PlainRouteSpec(RouteSpec, frozen=True):
    rules: tuple[Rule, ...] = ()


class AnyRoute(AnyObject, frozen=True):
    spec: RouteSpec
    status: Any = field(default_factory=dict)


class HttpRoute(AnyRoute, frozen=True):
    spec: HttpRouteSpec


class GrpcRoute(AnyRoute, frozen=True):
    spec: GrpcRouteSpec


class TlsRoute(AnyRoute, frozen=True):
    spec: PlainRouteSpec


class TcpRoute(AnyRoute, frozen=True):
    spec: PlainRouteSpec


class GrantFrom(Shape, frozen=True):
    group: str
    kind: str
    namespace: str


class GrantTo(Shape, frozen=True):
    group: str
    kind: str
    name: str = ""


class GrantSpec(Shape, frozen=True):
    from_: tuple[GrantFrom, ...] = field(default=(), name="from")
    to: tuple[GrantTo, ...] = ()


class ReferenceGrant(AnyObject, frozen=True):
    spec: GrantSpec


class AllowedNamespaces(Shape, frozen=True):
    from_: Literal["All", "Selector", "Same", "None"] = field(default="Same", name="from")
    selector: LabelSelector = LabelSelector()


class AllowedRoutes(Shape, frozen=True):
    namespaces: AllowedNamespaces = AllowedNamespaces()


class Listener(Shape, frozen=True):
    name: str
    port: Port
    protocol: str
    allowed_routes: AllowedRoutes = AllowedRoutes()


class ParametersReference(Shape, frozen=True):
    group: str
    kind: str
    name: str


class Infrastructure(Shape, frozen=True):
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    parameters_ref: ParametersReference | None = None


class GatewaySpec(Shape, frozen=True):
    gateway_class_name: str
    listeners: tuple[Listener, ...] = ()
    infrastructure: Infrastructure = Infrastructure()


class Gateway(AnyObject, frozen=True):
    spec: GatewaySpec
    status: Any = field(default_factory=dict)


class GatewayClassSpec(Shape, frozen=True):
    controller_name: str


class GatewayClass(AnyObject, frozen=True):
    spec: GatewayClassSpec
    status: Any = field(default_factory=dict)


SHAPES: dict[str, type[Shape]] = {
    "GatewayClass": GatewayClass,
    "Gateway": Gateway,
    "HTTPRoute": HttpRoute,
    "GRPCRoute": GrpcRoute,
    "TLSRoute": TlsRoute,
    "TCPRoute": TcpRoute,
    "ReferenceGrant": ReferenceGrant,
}
for _each in SHAPES.values():  # as in `shapes`
    json.Decoder(_each)
