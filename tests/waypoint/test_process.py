"""The process as it is started: control plane over real gRPC, certificate, readiness, metrics, drain, memory."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.identity.tls import TlsIdentity
from mesh.model.address import Ip, SocketAddress
from mesh.model.ports import ADMIN, HBONE, METRICS, READINESS
from mesh.model.routing import AppProtocol, Gateway, PortRouting, ServiceRouting, waypoint_group
from mesh.model.update import MeshUpdate
from mesh.model.workload import NetworkAddress, PortMapping, Service, TunnelProtocol, Workload, WorkloadUid
from mesh.wire.generated.ca_pb2 import IstioCertificateRequest, IstioCertificateResponse
from mesh.wire.generated.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from mesh.wire.services import (
    CERTIFICATE_SERVICE,
    CREATE_CERTIFICATE_METHOD,
    DELTA_METHOD,
    DISCOVERY_SERVICE,
    ROUTING_TYPE,
)
from mesh.xds.resources import Collection, routing_resource
from tests.agent.control_plane import ControlPlane
from tests.waypoint.rig import NAMESPACE, VIP, WAYPOINT_IP, Rig, account, app, hostname, key
from tests.waypoint.test_http1 import ask, mirror, read_message, wait_for

MOST_IDLE = 40 << 20  # bytes of memory of an idle waypoint: what its users are promised


class Control(ControlPlane):
    """Without a namespace: on a port of loopback. Its CA knows callers by nothing and issues to the waypoint."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Path("/"), directory)
        self.collections[ROUTING_TYPE] = Collection()
        self.groups[ROUTING_TYPE] = waypoint_group("shop/waypoint")
        self.port = 0

    def start(self) -> None:
        stream = grpc.stream_stream_rpc_method_handler(
            self._discover, DeltaDiscoveryRequest.FromString, DeltaDiscoveryResponse.SerializeToString
        )
        unary = grpc.unary_unary_rpc_method_handler(
            self._certify, IstioCertificateRequest.FromString, IstioCertificateResponse.SerializeToString
        )
        server = grpc.server(ThreadPoolExecutor(16))
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(DISCOVERY_SERVICE, {DELTA_METHOD: stream}),
                grpc.method_handlers_generic_handler(CERTIFICATE_SERVICE, {CREATE_CERTIFICATE_METHOD: unary}),
            )
        )
        credentials = grpc.ssl_server_credentials([self.authority.server_pair()])
        self.port = server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        server.start()
        self._server = server

    def _certify(self, request: IstioCertificateRequest, context: grpc.ServicerContext) -> IstioCertificateResponse:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        uri = str(account("waypoint"))
        leaf = self.authority.sign(request.csr, uri, self.lifetime)
        self.issued.append(uri)
        return IstioCertificateResponse(cert_chain=[leaf.decode(), self.authority.root_pem.decode()])


class WaypointProcess:
    def __init__(self, control: Control, directory: Path, **environment: str) -> None:
        token = directory / "token"
        token.write_text("the-token")
        self.log = directory / "waypoint.log"
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "POD_NAMESPACE": NAMESPACE,
            "POD_NAME": "waypoint-1",
            "GATEWAY_NAME": "waypoint",
            "CLUSTER_ID": "c",
            "XDS_ADDRESS": f"https://127.0.0.1:{control.port}",
            "CA_ADDRESS": f"https://127.0.0.1:{control.port}",
            "XDS_ROOT_CA": str(control.root_file),
            "CA_ROOT_CA": str(control.root_file),
            "AUTH_TOKEN": str(token),
            "WAYPOINT_LISTEN": WAYPOINT_IP,
            **environment,
        }
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "waypoint"], env=self._environment, stderr=log)

    def page(self, port: int, path: str) -> tuple[int, str]:
        host = "127.0.0.1" if port == ADMIN else WAYPOINT_IP
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except ConnectionError:
            return 0, ""
        finally:
            connection.close()

    def ready(self) -> bool:
        return self.page(READINESS, "/healthz/ready")[0] == 200

    def serving(self) -> bool:
        """Whether it is ready and knows what was published."""
        return self.ready() and "ServiceRouting" in self.page(ADMIN, "/config_dump")[1]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class OutsideRig(Rig):
    """The neighbours of a waypoint that runs in a process of its own, with certificates of its control plane."""

    def __init__(self, control: Control) -> None:
        super().__init__()
        self._control = control

    async def _start(self) -> None: ...

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        for pool in self._pools.values():
            pool.retire_all()

    def identity(self, name: str) -> TlsIdentity:
        if name not in self._identities:
            from datetime import timedelta

            from mesh.identity.csr import request_certificate

            request = request_certificate(account(name))
            leaf = self._control.authority.sign(request.csr.decode(), str(account(name)), timedelta(hours=1))
            self._identities[name] = TlsIdentity(leaf, request.private_key, self._control.authority.root_pem)
        return self._identities[name]

    def serve_pod(self, ip: str) -> None:
        self.run(self._serve_pod(ip))


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    plane = Control(tmp_path)
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
def waypoint(control: Control, tmp_path: Path) -> Iterator[WaypointProcess]:
    running = WaypointProcess(control, tmp_path)
    yield running
    running.end()


def publish(control: Control, target: int, protocol: AppProtocol = AppProtocol.AUTO) -> None:
    service = Service("web", NAMESPACE, hostname("web"), (NetworkAddress("", Ip(VIP)),), (PortMapping(80, target),))
    workload = Workload(
        WorkloadUid("c//Pod/shop/pod-1"), "pod-1", NAMESPACE, addresses=(Ip("127.9.1.1"),), service_account="app",
        tunnel_protocol=TunnelProtocol.HBONE, services={key("web"): (PortMapping(80, target),)},
    )  # fmt: skip
    control.publish(MeshUpdate(workloads=(workload,), services=(service,)))
    routing: list[Any] = [
        Gateway("shop/waypoint"),
        ServiceRouting("shop/waypoint", key("web"), (PortRouting(80, protocol),)),
    ]
    control.publish_resources(ROUTING_TYPE, [routing_resource(one, ["shop/waypoint"]) for one in routing])


def test_it_serves_what_its_control_plane_says(control: Control, waypoint: WaypointProcess) -> None:
    with OutsideRig(control) as rig, app("127.9.1.1", mirror) as port:
        rig.serve_pod("127.9.1.1")
        publish(control, port)
        wait_for(waypoint.serving, 30)
        assert control.metadata["authorization"] == "Bearer the-token"
        with rig.dial() as sock:
            head, _ = ask(sock, b"GET /hello HTTP/1.1\r\nHost: web\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
        _, metrics = waypoint.page(METRICS, "/stats/prometheus")
        (line,) = [line for line in metrics.splitlines() if line.startswith("istio_requests_total")]
        for label in ('reporter="waypoint"', 'response_code="200"', 'destination_workload="pod-1"'):
            assert label in line
        assert 'source_principal="spiffe://cluster.local/ns/shop/sa/client"' in line
        assert line.endswith(" 1.0")
        dump = json.loads(waypoint.page(ADMIN, "/config_dump")[1])
        assert dump["waypoint"] == "shop/waypoint"
        assert "service//shop/waypoint//shop/web.shop.svc.cluster.local" in dump["routing"]
        wait_for(lambda: 'path="/hello"' in waypoint.log.read_text())


def test_an_idle_waypoint_costs_little(control: Control, waypoint: WaypointProcess) -> None:
    publish(control, 9)
    wait_for(waypoint.serving, 30)
    pid = waypoint.process.pid
    wait_for(lambda: resident(pid) <= MOST_IDLE, 15)


def resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_a_drain_lets_requests_end_and_takes_no_new_ones(control: Control, waypoint: WaypointProcess) -> None:
    def slow(sock: Any) -> None:
        while True:
            read_message(sock)
            time.sleep(1)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    with OutsideRig(control) as rig, app("127.9.1.1", slow) as port:
        rig.serve_pod("127.9.1.1")
        publish(control, port)
        wait_for(waypoint.serving, 30)
        with rig.dial() as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            wait_for(lambda: len(rig.connects) == 1)
            waypoint.process.send_signal(signal.SIGTERM)
            head, body = read_message(sock)
            assert body == b"done"
            assert sock.recv(1) == b"" or b"connection: close" in head
        assert waypoint.process.wait(10) == 0


def test_it_goes_on_without_its_control_plane(control: Control, waypoint: WaypointProcess) -> None:
    with OutsideRig(control) as rig, app("127.9.1.1", mirror) as port:
        rig.serve_pod("127.9.1.1")
        publish(control, port)
        wait_for(waypoint.serving, 30)
        control.stop()
        with rig.dial() as sock:
            head, _ = ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
        control.start()
        control.publish(MeshUpdate(removed_services=(key("web"),)))
        wait_for(lambda: "web.shop" not in str(json.loads(waypoint.page(ADMIN, "/config_dump")[1])["services"]), 30)


def test_without_a_variable_it_says_which() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "waypoint"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr == "waypoint: POD_NAMESPACE is not set\n"


def test_the_port_is_that_of_hbone() -> None:
    assert SocketAddress(Ip(WAYPOINT_IP), HBONE).port == 15008


def test_a_worker_that_is_killed_is_started_again(control: Control, tmp_path: Path) -> None:
    running = WaypointProcess(control, tmp_path, WAYPOINT_WORKERS="2")
    try:
        with OutsideRig(control) as rig, app("127.9.1.1", mirror) as port:
            rig.serve_pod("127.9.1.1")
            publish(control, port)
            wait_for(running.serving, 60)
            for child in children(running.process.pid)[:1]:
                os.kill(child, signal.SIGKILL)
            wait_for(lambda: len(children(running.process.pid)) == 2, 30)
            wait_for(running.serving, 60)
            with rig.dial() as sock:
                assert ask(sock, b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")[0].startswith(b"HTTP/1.1 200 ")
        running.process.terminate()
        assert running.process.wait(20) == 0
    finally:
        for child in children(running.process.pid):
            os.kill(child, signal.SIGKILL)
        running.end()


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []
