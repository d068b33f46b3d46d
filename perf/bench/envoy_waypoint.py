"""Envoy as a waypoint and as the app behind it. Pure.

A waypoint takes CONNECT over mutual TLS, looks at the requests inside, and sends them on in a CONNECT of its own to the
destination's ztunnel. In Envoy each of the three steps is a listener; the inner ones are internal.
"""

from __future__ import annotations

from typing import Any

from perf.bench.certificates import KeyPair
from perf.bench.envoy import TYPES, address, cluster, connect_route, http2, manager, tls, tunnel_cluster

BODY = 1024  # bytes
Json = dict[str, Any]


def waypoint(keys: KeyPair, listen: tuple[str, int], app_ip: str, ports: dict[int, int], hbone: int) -> Json:
    """`ports`: of the service, each with the port of the app behind it; `hbone`: where its ztunnel listens."""
    outer = manager("CONNECT", [_outer(port) for port in ports], codec="HTTP2")
    downstream = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": tls(keys),
    }
    chain = {
        "filters": [outer],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": downstream},
    }
    hosts = [listener for port, target in ports.items() for listener in _inner(port, f"{app_ip}:{target}")]
    clusters = [each for port in ports for each in (_to_listener(f"in-{port}"), _to_app(port))]
    internal = {
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": {"@type": f"{TYPES}.bootstrap.internal_listener.v3.InternalListener"},
    }
    return {
        "bootstrap_extensions": [internal],
        "static_resources": {
            "listeners": [{"name": "hbone", "address": address(*listen), "filter_chains": [chain]}, *hosts],
            "clusters": [*clusters, tunnel_cluster("ztunnel", keys, (app_ip, hbone))],
        },
    }


def app(listen: tuple[str, int]) -> Json:
    """Answers each request with BODY bytes, in HTTP/1.1 and HTTP/2."""
    answer = {"status": 200, "body": {"inline_string": "x" * BODY}}
    host = {"name": "app", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "direct_response": answer}]}
    listener = {"name": "app", "address": address(*listen), "filter_chains": [{"filters": [manager("app", [host])]}]}
    return {"static_resources": {"listeners": [listener]}}


def _outer(port: int) -> Json:
    """CONNECT to whatever address, told apart by its port."""
    return {"name": f"port-{port}", "domains": [f"*:{port}"], "routes": [connect_route(f"in-{port}")]}


def _inner(port: int, target: str) -> list[Json]:
    """Where requests are looked at, and where they go into a CONNECT again."""
    route = {"match": {"prefix": "/"}, "route": {"cluster": f"app-{port}", "timeout": "0s"}}
    requests = manager(f"in-{port}", [{"name": "all", "domains": ["*"], "routes": [route]}])
    proxy = {
        "@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": f"out-{port}",
        "cluster": "ztunnel",
        "tunneling_config": {"hostname": target},
    }
    out = {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}
    return [
        {"name": name, "internal_listener": {}, "filter_chains": [{"filters": [filter_]}]}
        for name, filter_ in ((f"in-{port}", requests), (f"out-{port}", out))
    ]


def _to_app(port: int) -> Json:
    """In the protocol that the request came in."""
    options = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": http2()},
    }
    return {
        **_to_listener(f"out-{port}"),
        "name": f"app-{port}",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _to_listener(name: str) -> Json:
    made = cluster(name, "0.0.0.0", 0)
    inside = {"envoy_internal_address": {"server_listener_name": name}}
    made["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": inside}}]}]
    return made
