"""A waypoint with its neighbours on loopback addresses: a ztunnel for clients, one for servers, and apps of the tests.

The waypoint and both neighbours run in one event loop of a thread of their own; all between them is real: sockets, TLS
with certificates of a test authority, HBONE. Tests talk to plain sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import uvloop

from mesh.hbone.connect_headers import FORWARDED, build_forwarded
from mesh.identity.tls import TlsIdentity
from mesh.model.address import Ip, SocketAddress
from mesh.model.http_policy import HttpPolicy
from mesh.model.identity import SpiffeId
from mesh.model.ports import HBONE
from mesh.model.routing import AppProtocol, Gateway, PortRouting, Route, ServiceRouting
from mesh.model.update import MeshUpdate
from mesh.model.workload import NetworkAddress, PortMapping, Service, ServiceKey, TunnelProtocol, Workload, WorkloadUid
from mesh.wire.routing import Routing
from tests.identity.certificates_for_tests import Issuer
from waypoint.channel import Channel
from waypoint.core import Core
from waypoint.exchange.exchange import Record
from waypoint.plan.target import Refusal
from waypoint.plan.world import Own
from waypoint.serve.connection import Arrival
from waypoint.serve.stream import StreamRecord
from waypoint.splice import Splice
from waypoint.tcp import TcpChannel, TcpOpening
from waypoint.tunnel.pool import Key, Pool
from waypoint.tunnel.server import Connect, Tunnels

NAMESPACE = "shop"
VIP = "10.96.0.1"
WAYPOINT_IP = "127.9.0.1"
CLIENT_IP = "127.0.0.1"
PATIENCE = 10.0


def account(name: str) -> SpiffeId:
    return SpiffeId("cluster.local", NAMESPACE, name)


@dataclass
class Witness:
    """Keeps what the waypoint reports."""

    requests: list[Record] = field(default_factory=list)
    streams: list[StreamRecord] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def request(self, record: Record, arrival: Arrival) -> None:
        self.requests.append(record)

    def opened(self, record: StreamRecord, arrival: Arrival) -> None: ...

    def closed(self, record: StreamRecord, arrival: Arrival) -> None:
        self.streams.append(record)

    def refused(self, connect: Connect, refusal: Refusal) -> None:
        self.refusals.append(refusal.reason)


class Rig:
    """Endpoints have addresses 127.9.1.1, 127.9.1.2, ...; each is a pod `pod-N` of service account `app`."""

    def __init__(self) -> None:
        self.issuer = Issuer.root()
        self.witness = Witness()
        self.connects: list[Mapping[str, str]] = []  # headers of the CONNECTs that reached the destination's ztunnel
        self.apps: dict[tuple[str, int], socket.socket] = {}
        self._identities: dict[str, TlsIdentity] = {}
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = threading.Event()
        self._servers: list[asyncio.Server] = []
        self._pools: dict[str, Pool] = {}
        self._workloads: dict[str, Workload] = {}
        self.core: Core

    # --- life

    def __enter__(self) -> Rig:
        self._thread.start()
        self._started.wait(PATIENCE)
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        for app in self.apps.values():
            app.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._started.set)
        self.loop.run_forever()

    def run(self, coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)  # type: ignore[arg-type]

    def call(self, function: Callable[[], object]) -> object:
        async def within() -> object:
            return function()

        return self.run(within())

    async def _start(self) -> None:
        own = Own(NAMESPACE, "waypoint", WorkloadUid("c//Pod/shop/waypoint-1"), "", account("waypoint"))
        self.core = Core(self.loop, own, "cluster.local", self.witness)
        self.core.identity = self.identity("waypoint")
        await self._listen(self.core.tunnels.protocol, WAYPOINT_IP)

    async def _stop(self) -> None:
        for server in self._servers:
            server.close()
        self.core.cut("the test is over")
        for pool in self._pools.values():
            pool.retire_all()
        await asyncio.sleep(0)

    async def _listen(self, factory: Callable[[], asyncio.BaseProtocol], ip: str) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ip, HBONE))
        self._servers.append(await self.loop.create_server(factory, sock=sock, backlog=1024))

    def identity(self, name: str) -> TlsIdentity:
        if name not in self._identities:
            self._identities[name] = self.issuer.identity(str(account(name)))
        return self._identities[name]

    # --- what the waypoint is told

    def endpoint(self, number: int, services: Mapping[str, Mapping[int, int]], *, tunnel: bool = True) -> str:
        """A pod; `services` maps a service's name to service port and target port. Its address."""
        ip = f"127.9.1.{number}"
        workload = Workload(
            WorkloadUid(f"c//Pod/{NAMESPACE}/pod-{number}"),
            f"pod-{number}",
            NAMESPACE,
            addresses=(Ip(ip),),
            service_account="app",
            tunnel_protocol=TunnelProtocol.HBONE if tunnel else TunnelProtocol.NONE,
            workload_name="app",
            canonical_name="app",
            services={
                key(name): tuple(PortMapping(port, target) for port, target in ports.items())
                for name, ports in services.items()
            },
        )
        if tunnel and ip not in self._workloads:
            self.run(self._serve_pod(ip))
        self._workloads[ip] = workload
        self.call(lambda: self.core.world.apply_mesh(MeshUpdate(workloads=(workload,))))
        return ip

    def service(self, name: str, vip: str, ports: Mapping[int, int]) -> None:
        service = Service(
            name,
            NAMESPACE,
            hostname(name),
            (NetworkAddress("", Ip(vip)),),
            tuple(PortMapping(port, target) for port, target in ports.items()),
        )
        self.call(lambda: self.core.world.apply_mesh(MeshUpdate(services=(service,))))

    def publish(self, *resources: Routing) -> None:
        named = {resource.key: resource for resource in resources}

        def apply() -> None:
            self.core.world.apply_routing(named, ())
            self.core.world.known = True

        self.call(apply)

    def simple(
        self,
        protocol: AppProtocol = AppProtocol.AUTO,
        *,
        target: int,
        routes: tuple[Route, ...] = (),
        **gateway: object,
    ) -> None:
        """One service `web` at VIP:80 with one endpoint, served by the waypoint."""
        self.service("web", VIP, {80: target})
        self.endpoint(1, {"web": {80: target}})
        self.publish(
            Gateway("shop/waypoint", **gateway),  # type: ignore[arg-type]
            ServiceRouting("shop/waypoint", key("web"), (PortRouting(80, protocol, routes),)),
        )

    def policy(self, policy: HttpPolicy) -> None:
        """Holds for all that passes the waypoint."""
        self.publish(policy, Gateway("shop/waypoint", policies=(policy.policy,)))

    # --- the ztunnel of clients

    def dial(self, authority: str = f"{VIP}:80", who: str = "client") -> socket.socket:
        """A connection of an app with service account `who`, as if it had dialled `authority`."""
        sock = socket.create_connection(("127.0.0.1", self.listen(authority, who)), PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def listen(self, authority: str = f"{VIP}:80", who: str = "client") -> int:
        """A port of 127.0.0.1 whose connections go to `authority`."""

        async def serve() -> int:
            server = await self.loop.create_server(lambda: _Bridged(self, authority, who), "127.0.0.1", 0, backlog=1024)
            self._servers.append(server)
            return int(server.sockets[0].getsockname()[1])

        port = self.run(serve())
        assert isinstance(port, int)
        return port

    def open(self, authority: str, who: str, opened: Callable[[Channel], None], failed: Callable[[str], None]) -> None:
        pool = self._pools.get(who)
        if pool is None:
            identity = self.identity(who)
            pool = self._pools[who] = Pool(self.loop, lambda: identity)
        target = Key(SocketAddress(Ip(WAYPOINT_IP), HBONE), frozenset({account("waypoint")}))
        headers = ((FORWARDED, build_forwarded(SocketAddress(Ip(CLIENT_IP), 40000))),)
        pool.open(target, authority, headers, opened, failed)

    # --- the ztunnel of servers

    async def _serve_pod(self, ip: str) -> None:
        identity = self.identity("app")
        tunnels = Tunnels(self.loop, lambda: identity, "cluster.local", lambda connect: self._deliver(ip, connect))
        await self._listen(tunnels.protocol, ip)

    def _deliver(self, ip: str, connect: Connect) -> None:
        self.connects.append({"peer": str(connect.peer), **connect.request.headers})
        address = connect.request.address
        assert address is not None
        assert address.ip == ip

        def opened(server: Channel) -> None:
            Splice(connect.accept(), server, lambda splice, reason: None)

        TcpOpening(self.loop, address, opened, lambda reason: connect.refuse(503))


class _Bridged(TcpChannel):
    """An app's connection, as its ztunnel carries it; its own user until the tunnel stands."""

    def __init__(self, rig: Rig, authority: str, who: str) -> None:
        super().__init__()
        self._rig, self._authority, self._who = rig, authority, who
        self._early, self._app_ended = b"", False
        self.user = self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._rig.open(self._authority, self._who, self._joined, lambda reason: self.reset())

    def _joined(self, tunnel: Channel) -> None:
        Splice(self, tunnel, lambda splice, reason: None).push(self._early, self._app_ended)

    def received(self, pieces: list[memoryview]) -> None:
        self._early += b"".join(pieces)

    def ended(self) -> None:
        self._app_ended = True

    def lost(self, reason: str) -> None: ...

    def drained(self) -> None: ...


def key(name: str) -> ServiceKey:
    return ServiceKey(f"{NAMESPACE}/{hostname(name)}")


def hostname(name: str) -> str:
    return f"{name}.{NAMESPACE}.svc.cluster.local"


# --- apps


@contextlib.contextmanager
def app(ip: str, serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server at `ip`: `serve` gets each connection, in a thread of its own. The port."""
    listener = socket.create_server((ip, 0), backlog=256)

    def handle(sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        with sock, contextlib.suppress(OSError, EOFError):
            serve(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=handle, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def client_hello(name: str) -> bytes:
    """What OpenSSL says first to a server of that name; "" for one that has none."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name or None)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError(f"the connection ended after {data!r}")
        data += piece
    return data


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        piece = sock.recv(65536)
        if not piece:
            raise EOFError(f"the connection ended after {data!r}")
        data += piece
    return data


def is_closed(sock: socket.socket) -> bool:
    """Whether the other end ends it, in whichever way, without a byte."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data
