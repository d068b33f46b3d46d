"""Each CONNECT from arrival to end: for whom it is, what it speaks, and who serves it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Protocol

from mesh.model.routing import AppProtocol
from waypoint.channel import Channel
from waypoint.exchange.exchange import Record
from waypoint.exchange.upstreams import Upstreams
from waypoint.http.http1_server import Http1Server
from waypoint.http.http2_server import Http2Server
from waypoint.http.message import ProtocolError
from waypoint.plan.target import Refusal, find_target
from waypoint.plan.world import World
from waypoint.serve.connection import Arrival, arrival
from waypoint.serve.detect import Speaks, detect, detect_tls, detect_version
from waypoint.serve.requests import BAD_REQUEST, Live, Requests
from waypoint.serve.sniffer import Sniffer
from waypoint.serve.stream import StreamConnection, StreamRecord, carry
from waypoint.splice import Splice
from waypoint.tunnel.server import Connect

HTTP = frozenset({AppProtocol.HTTP, AppProtocol.HTTP2, AppProtocol.GRPC})


class Observer(Protocol):
    """Who is told what became of everything."""

    def request(self, record: Record, arrival: Arrival) -> None: ...

    def opened(self, record: StreamRecord, arrival: Arrival) -> None: ...

    def closed(self, record: StreamRecord, arrival: Arrival) -> None: ...

    def refused(self, connect: Connect, refusal: Refusal) -> None: ...


class Arrivals:
    """`arrived` is called for each CONNECT."""

    def __init__(self, loop: asyncio.AbstractEventLoop, world: World, upstreams: Upstreams, observer: Observer) -> None:
        self._loop = loop
        self._world = world
        self._upstreams = upstreams
        self._observer = observer
        self._servers: set[Http1Server | Http2Server] = set()
        self._draining = False
        self._requests = Live()
        self._live: dict[Splice, tuple[Arrival, str]] = {}  # with the server name of each
        world.routing_changed = self._judge_again

    def arrived(self, connect: Connect) -> None:
        request = connect.request
        target = find_target(self._world, request.host, request.port)
        if isinstance(target, Refusal):
            connect.refuse(target.status)
            self._observer.refused(connect, target)
            return
        found = arrival(self._world, connect, target)
        table = found.table()
        if target.protocol is AppProtocol.TCP and (table is None or not table.routes_streams(found.client)):
            _Tcp(self, found).dial_first(connect)
        else:
            channel = connect.accept()
            _Unknown(self, found, channel)

    def drain(self) -> None:
        """Each connection of HTTP ends after its present requests."""
        self._draining = True
        for server in list(self._servers):
            server.drain()

    @property
    def connections(self) -> int:
        return len(self._servers)

    # --- who serves

    def serve_http(self, found: Arrival, channel: Channel, speaks: Speaks, early: bytes, ended: bool) -> None:
        requests = Requests(self._loop, found, self._upstreams, self._requests, self._observer.request)
        server: Http1Server | Http2Server

        def finished() -> None:
            self._servers.discard(server)

        def refused(error: ProtocolError) -> None:
            record = Record(found.client, "-", "", "", "HTTP/1.1", self._loop.time(), status=error.status)
            record.flags, record.reason = BAD_REQUEST, error.reason
            self._observer.request(record, found)

        if speaks is Speaks.HTTP2:
            server = Http2Server(self._loop, channel, requests.speaks_http2().serve, finished)
        else:
            server = Http1Server(self._loop, channel, requests.serve, refused, finished)
        self._servers.add(server)
        if early:
            server.received([memoryview(early)])
        if ended:
            server.ended()
        elif self._draining:
            server.drain()

    def open_stream(
        self,
        found: Arrival,
        protocol: str,
        sni: str,
        opened: Callable[[Channel, StreamRecord], None],
        failed: Callable[[str], None],
    ) -> StreamConnection:
        record = StreamRecord(found.client, str(found.target), found.service, protocol, self._loop.time())

        def stands(channel: Channel) -> None:
            self._observer.opened(record, found)
            opened(channel, record)

        def refused(reason: str) -> None:
            self._observer.closed(record, found)
            failed(reason)

        dialler = self._upstreams.dialler
        stream = StreamConnection(self._loop, found, dialler, sni, record, stands, refused, random.random)
        stream.start()
        return stream

    def refuse(self, found: Arrival, client: Channel, reason: str) -> None:
        """A client whose TLS cannot be read. DPE: Envoy's flag of a protocol error downstream."""
        record = StreamRecord(found.client, str(found.target), found.service, "tls", self._loop.time())
        record.reason, record.flags = reason, "DPE"
        self._observer.closed(record, found)
        client.reset()

    def carry(self, found: Arrival, client: Channel, server: Channel, record: StreamRecord, sni: str = "") -> Splice:
        def finished(ended: StreamRecord) -> None:
            self._live.pop(splice, None)
            self._observer.closed(ended, found)

        splice = carry(client, server, record, finished)
        self._live[splice] = found, sni
        return splice

    def _judge_again(self) -> None:
        """Cuts the connections and the requests under way that a change of policy denies."""
        self._requests.judge_again()
        for splice, (found, sni) in list(self._live.items()):
            denial = found.judge_connection(sni)
            if denial is not None:
                splice.cut(denial.reason)


class _Tcp:
    """TCP by its port's word: the destination is dialled before the client is let in, as ztunnel does."""

    def __init__(self, arrivals: Arrivals, found: Arrival) -> None:
        self._arrivals = arrivals
        self._found = found

    def dial_first(self, connect: Connect) -> None:
        def opened(server: Channel, record: StreamRecord) -> None:
            if connect.gave_up:
                server.reset()
            else:
                self._arrivals.carry(self._found, connect.accept(), server, record)

        def failed(reason: str) -> None:
            connect.refuse(503)

        self._arrivals.open_stream(self._found, "tcp", "", opened, failed)


class _Unknown:
    """A connection that shows what it is by what its client sends, or by who speaks first."""

    def __init__(self, arrivals: Arrivals, found: Arrival, channel: Channel) -> None:
        self._arrivals = arrivals
        self._found = found
        self._channel = channel
        self._probe: _Probe | None = None
        table = found.table()
        streams = table is not None and table.routes_streams(found.client)
        look, otherwise = detect, Speaks.TCP
        if streams:
            look = detect_tls
        elif found.target.protocol in HTTP:  # whatever is none is bad HTTP
            look, otherwise = detect_version, Speaks.HTTP1
        self._sniffer = Sniffer(
            arrivals._loop, channel, self._found_out, self._silent, self._unreadable, look, otherwise
        )

    def _found_out(self, speaks: Speaks, early: bytes, sni: str, client_ended: bool) -> None:
        probe, self._probe = self._probe, None
        table = self._found.table()
        streams = table is not None and table.routes_streams(self._found.client)
        if speaks in (Speaks.HTTP1, Speaks.HTTP2) and not streams:
            if probe is not None:
                probe.cancel()
            self._arrivals.serve_http(self._found, self._channel, speaks, early, client_ended)
            return
        if probe is not None and not sni:
            probe.take(early, client_ended)
            return
        if probe is not None:
            probe.cancel()
        _Probe(self._arrivals, self._found, self._channel, "tls" if speaks is Speaks.TLS else "tcp", sni).take(
            early, client_ended
        )

    def _silent(self) -> None:
        if self._found.target.protocol in (AppProtocol.AUTO, AppProtocol.TCP):
            self._probe = _Probe(self._arrivals, self._found, self._channel, "tcp", "", self._server_speaks)

    def _unreadable(self, reason: str) -> None:
        if self._probe is not None:
            self._probe.cancel()
        self._arrivals.refuse(self._found, self._channel, reason)

    def _server_speaks(self) -> None:
        """Then it is TCP."""
        self._sniffer.cancel()
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.take(b"", False)


class _Probe:
    """A dial whose bytes wait until `take` joins it with the client. `speaks` is called at the server's first byte."""

    def __init__(
        self,
        arrivals: Arrivals,
        found: Arrival,
        client: Channel,
        protocol: str,
        sni: str,
        speaks: Callable[[], None] | None = None,
    ) -> None:
        self._arrivals = arrivals
        self._found = found
        self._client = client
        self._sni = sni
        self._speaks = speaks
        self._taken: tuple[bytes, bool] | None = None
        self._server: Channel | None = None
        self._record: StreamRecord | None = None
        self._early = b""
        self._server_ended = self._cancelled = self._failed = False
        self._stream = arrivals.open_stream(found, protocol, sni, self._opened, self._refused)

    def take(self, early: bytes, client_ended: bool) -> None:
        self._taken = early, client_ended
        if self._failed:
            self._client.reset()
        elif self._server is not None:
            self._join()
        else:
            self._client.user = self

    def cancel(self) -> None:
        self._cancelled = True
        self._stream.cancel() if self._server is None else self._server.reset()
        if self._record is not None:
            self._arrivals._observer.closed(self._record, self._found)

    def _opened(self, server: Channel, record: StreamRecord) -> None:
        self._server, self._record = server, record
        server.user = _ProbeServer(self)
        if self._taken is not None:
            self._join()

    def _refused(self, reason: str) -> None:
        self._failed = True
        if self._taken is not None:
            self._client.reset()

    def _join(self) -> None:
        assert self._taken is not None
        assert self._server is not None
        assert self._record is not None
        early, client_ended = self._taken
        splice = self._arrivals.carry(self._found, self._client, self._server, self._record, self._sni)
        splice.push(early, client_ended)
        splice.pull(self._early, self._server_ended)

    def server_said(self, pieces: list[memoryview]) -> None:
        self._early += b"".join(pieces)
        self._server_spoke()

    def server_ended(self) -> None:
        self._server_ended = True
        self._server_spoke()

    def _server_spoke(self) -> None:
        speaks, self._speaks = self._speaks, None
        if speaks is not None:
            speaks()

    def server_lost(self) -> None:
        self._failed = True
        if self._taken is not None:
            self._client.reset()

    # --- as the client's user, between `take` and the dial's end

    def received(self, pieces: list[memoryview]) -> None:
        assert self._taken is not None
        self._taken = self._taken[0] + b"".join(pieces), self._taken[1]

    def ended(self) -> None:
        assert self._taken is not None
        self._taken = self._taken[0], True

    def lost(self, reason: str) -> None:
        self.cancel()

    def drained(self) -> None: ...


class _ProbeServer:
    """The user of the dialled channel until it is joined."""

    def __init__(self, probe: _Probe) -> None:
        self._probe = probe

    def received(self, pieces: list[memoryview]) -> None:
        self._probe.server_said(pieces)

    def ended(self) -> None:
        self._probe.server_ended()

    def lost(self, reason: str) -> None:
        self._probe.server_lost()

    def drained(self) -> None: ...
