"""The ports of the mesh: Istio's own, so that its tools, NetworkPolicies and dashboards fit."""

OUTBOUND = 15001  # pod netns, loopback: captured outbound connections
INBOUND_PLAINTEXT = 15006  # pod netns: captured inbound connections that did not come through a tunnel
HBONE = 15008  # pod netns: HTTP/2 CONNECT over mutual TLS
DNS = 15053  # pod netns, loopback: captured DNS over UDP and TCP
ADMIN = 15000  # node, loopback
METRICS = 15020  # node
READINESS = 15021  # node
NODE_AGENT = 15022  # node: metrics and readiness of the node agent
CONTROLLER = 15012  # controller: xDS and CA over TLS

# What a tunnel must never be asked to dial inside a pod: a proxy's own listeners (ztunnel: illegal_ports).
PROXY_PORTS = frozenset({OUTBOUND, INBOUND_PLAINTEXT, HBONE, DNS})
