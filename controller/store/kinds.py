"""The kinds that this mesh acts on. An object of any other kind is refused: accepted and ignored would be a lie."""

from __future__ import annotations

from controller.store.interface import Key, Kind, Object, StoreError

NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
NODE = Kind("", "v1", "Node", "nodes", namespaced=False)
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
POD = Kind("", "v1", "Pod", "pods")
SERVICE = Kind("", "v1", "Service", "services")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")

GATEWAY_GROUP = "gateway.networking.k8s.io"
GATEWAY_CLASS = Kind(
    GATEWAY_GROUP, "v1", "GatewayClass", "gatewayclasses", namespaced=False, versions=("v1beta1",), optional=True
)
GATEWAY = Kind(GATEWAY_GROUP, "v1", "Gateway", "gateways", versions=("v1beta1",), optional=True)
HTTP_ROUTE = Kind(GATEWAY_GROUP, "v1", "HTTPRoute", "httproutes", versions=("v1beta1",), optional=True)
GRPC_ROUTE = Kind(GATEWAY_GROUP, "v1", "GRPCRoute", "grpcroutes", versions=("v1alpha2",), optional=True)
TLS_ROUTE = Kind(GATEWAY_GROUP, "v1", "TLSRoute", "tlsroutes", versions=("v1alpha3", "v1alpha2"), optional=True)
TCP_ROUTE = Kind(GATEWAY_GROUP, "v1", "TCPRoute", "tcproutes", versions=("v1alpha2",), optional=True)
REFERENCE_GRANT = Kind(
    GATEWAY_GROUP, "v1", "ReferenceGrant", "referencegrants", versions=("v1beta1", "v1alpha2"), optional=True
)
ROUTES = (HTTP_ROUTE, GRPC_ROUTE, TLS_ROUTE, TCP_ROUTE)
GATEWAY_KINDS = (GATEWAY_CLASS, GATEWAY, *ROUTES, REFERENCE_GRANT)

SECURITY_GROUP = "security.istio.io"
AUTHORIZATION_POLICY = Kind(
    SECURITY_GROUP, "v1", "AuthorizationPolicy", "authorizationpolicies", versions=("v1beta1",), optional=True
)
PEER_AUTHENTICATION = Kind(
    SECURITY_GROUP, "v1", "PeerAuthentication", "peerauthentications", versions=("v1beta1",), optional=True
)
SECURITY_KINDS = (AUTHORIZATION_POLICY, PEER_AUTHENTICATION)

# A new kind is one line above and its name here; its fields, when the mesh reads any, are in `shapes`.
_CORE = (NAMESPACE, NODE, SERVICE_ACCOUNT, CONFIG_MAP, POD, SERVICE, ENDPOINT_SLICE, DEPLOYMENT)
KINDS = (*_CORE, *GATEWAY_KINDS, *SECURITY_KINDS)

DEFAULT_NAMESPACE = "default"

_BY_TYPE = {
    (kind.in_version(version).api_version, kind.kind): kind
    for kind in KINDS
    for version in (kind.version, *kind.versions)
}
_BY_NAME = {kind.kind: kind for kind in KINDS}


def find(api_version: str, kind: str) -> Kind:
    """Raises StoreError: which kinds are known, or which apiVersion this kind has."""
    found = _BY_TYPE.get((api_version, kind))
    if found is not None:
        return found
    if kind in _BY_NAME:
        raise StoreError(f"{kind} has apiVersion {_BY_NAME[kind].api_version}, not {api_version}")
    raise StoreError(f"unknown kind {kind} ({api_version}); known are {', '.join(sorted(_BY_NAME))}")


def named(kind: str) -> Kind:
    """The kind of a `Key`. Raises StoreError."""
    try:
        return _BY_NAME[kind]
    except KeyError:
        raise StoreError(f"unknown kind {kind}; known are {', '.join(sorted(_BY_NAME))}") from None


def key_of(obj: Object) -> Key:
    """The key of a valid object."""
    kind = find(obj["apiVersion"], obj["kind"])
    namespace = obj["metadata"].get("namespace", DEFAULT_NAMESPACE) if kind.namespaced else ""
    return Key(kind.kind, namespace, obj["metadata"]["name"])
