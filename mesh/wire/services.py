"""The names by which the mesh's protocols are called on the wire."""

from __future__ import annotations

TYPE_PREFIX = "type.googleapis.com/"
ADDRESS_TYPE = TYPE_PREFIX + "istio.workload.Address"
AUTHORIZATION_TYPE = TYPE_PREFIX + "istio.security.Authorization"
ROUTING_TYPE = (
    TYPE_PREFIX + "ambit.waypoint.v1.Routing"
)  # of our own: JSON of mesh.model.routing, see mesh.wire.routing

DISCOVERY_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
DELTA_METHOD = "DeltaAggregatedResources"
DELTA_PATH = f"/{DISCOVERY_SERVICE}/{DELTA_METHOD}"

CERTIFICATE_SERVICE = "istio.v1.auth.IstioCertificateService"
CREATE_CERTIFICATE_METHOD = "CreateCertificate"
CREATE_CERTIFICATE_PATH = f"/{CERTIFICATE_SERVICE}/{CREATE_CERTIFICATE_METHOD}"
IMPERSONATED_IDENTITY = "ImpersonatedIdentity"  # key in IstioCertificateRequest.metadata

# The whole mesh comes in one message; Istio's ztunnel takes as much (src/xds/client.rs).
MAX_MESSAGE_BYTES = 200 << 20
