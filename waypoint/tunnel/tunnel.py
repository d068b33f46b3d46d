"""One tunnel: a TCP connection, TLS in memory, and an HTTP/2 connection full of streams.

Everything that a turn of the event loop stages, for all streams, leaves in one TLS write and one send. While the
network takes nothing, nothing more is encrypted: the staging buffer fills up and the streams' producers stop. Until the
peer has proved who it is, not a byte of HTTP/2 is sent.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar, cast

from mesh.hbone import SERVER_LIMITS, Budget, Connection, ConnectionFailed, Limits, Role
from mesh.identity.errors import PeerRejected, TlsClosed, TlsFailed
from mesh.identity.session import RECEIVE_SIZE, TlsSession, ciphertext
from mesh.model.identity import SpiffeId
from waypoint.streams import Multiplex, Stream

HANDSHAKE_TIMEOUT = 10.0  # seconds for TLS and SETTINGS, which need no decision of anybody
PING_INTERVAL = 10.0  # seconds, as Istio's
PING_TIMEOUT = 20.0
FAREWELL_TIMEOUT = 5.0  # for the last bytes of a tunnel that is closed on purpose
PING = b"ambit-ka"
STREAM_WINDOW = 256 << 10  # bytes that one stream may make us hold while nobody takes them
WINDOW_GROWTH = 64 << 20  # bytes by which all windows of the process may grow

# What is decrypted is used up before anything else runs, so one buffer serves all tunnels of the process.
_plaintext = memoryview(bytearray(RECEIVE_SIZE + SERVER_LIMITS.max_header_list))
_growth = Budget(WINDOW_GROWTH)


class Tunnel(Multiplex[Stream], asyncio.BufferedProtocol, ABC):
    """Both roles; what differs is below `# --- roles`. Also the `Handler` of its HTTP/2 connection."""

    role: ClassVar[Role]
    limits: ClassVar[Limits]

    def __init__(self, loop: asyncio.AbstractEventLoop, session: TlsSession) -> None:
        super().__init__(loop)
        self.peer: SpiffeId | None = None
        self.retired = False  # takes no new streams and closes after the last
        self._session = session
        self._transport: asyncio.Transport | None = None
        self._paused = False  # the network does not take what was sent
        self._settings_came = False
        self._farewell = False  # GOAWAY is said: end once everything is sent
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered_since: float | None = None
        self._stuck_since: float | None = None
        self.idle_since = loop.time()

    # --- the end

    def retire(self) -> None:
        """No new streams; closes when those that stand have ended."""
        if self.closed or self.retired:
            return
        self.retired = True
        if self._connection is None:
            self.fail("the tunnel is not needed any more")
            return
        if self.role is Role.SERVER:
            self._connection.go_away()
            self.mark()
        if not self.streams:
            self._say_farewell()

    def fail(self, reason: str) -> None:
        """Everything on it breaks; what is staged (an alert, a GOAWAY) leaves if the network takes it."""
        if self.closed:
            return
        self._send_staged()
        self._close(reason)

    def _say_farewell(self) -> None:
        if self._farewell or self._connection is None:
            return
        self._farewell = True
        if self.role is Role.CLIENT:
            self._connection.go_away()
        self._restart_timer(FAREWELL_TIMEOUT, lambda: self._close(""))
        self.mark()

    def _close(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is not None:
            self._connection.release()
        if self._transport is not None:
            self._transport.close()
        self.break_streams(reason or "the tunnel has been closed")
        self._gone(reason)

    def stream_released(self, stream: int) -> None:
        if not self.streams:
            self.idle_since = self.loop.time()
            if self.retired:
                self._say_farewell()
        self._room_made()

    # --- the network (asyncio.BufferedProtocol)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=0)  # `pause_writing` as soon as anything is unsent
        self._timer = self.loop.call_later(HANDSHAKE_TIMEOUT, self._handshake_timed_out)
        self._take_in()

    def get_buffer(self, sizehint: int) -> memoryview:
        return ciphertext

    def buffer_updated(self, nbytes: int) -> None:
        if self.closed:
            return
        self._session.feed(nbytes)
        self._unanswered_since = None
        self._take_in()

    def eof_received(self) -> bool:
        if not self.closed:
            self._session.feed_eof()
            self._take_in()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._close(f"the peer's connection broke: {exc}" if exc else "the peer closed the connection")

    def pause_writing(self) -> None:
        self._paused = True
        self._stuck_since = self.loop.time()

    def resume_writing(self) -> None:
        self._paused = False
        self._stuck_since = None
        self._flush()

    def _take_in(self) -> None:
        try:
            if self._connection is None and not self._shake_hands():
                return
            self._decrypt()
        except TlsClosed as error:
            self.fail("" if self._farewell else str(error))
        except (TlsFailed, PeerRejected) as error:
            self.fail(str(error))
        except ConnectionFailed as error:
            self.fail(f"the peer broke HTTP/2: {error}")

    def _shake_hands(self) -> bool:
        """Whether the peer is known now and HTTP/2 has begun."""
        done = self._session.handshake()
        if not done:
            self.mark()
            return False
        self.peer = self._check_peer(self._session)
        self._connection = Connection(self.role, self, self.limits, _plaintext, _growth)
        self.mark()
        self._established()
        return not self.closed

    def _decrypt(self) -> None:
        connection, session = self._connection, self._session
        assert connection is not None
        while not self.closed:
            room = connection.receive_buffer()
            size = session.read_into(room)
            if not size:
                break
            connection.received(size)
            if size < len(room) and not session.ended:
                break
        if connection.staged and not self._marked:
            self.mark()

    # --- output

    def _flush(self) -> None:
        self._marked = False
        connection = self._connection
        if self.closed or self._paused:
            return
        if connection is not None and connection.failure is not None:
            self.fail(f"the peer broke HTTP/2: {connection.failure}")
            return
        if not self._send_staged() or self.closed or self._paused:
            return
        if self._waiting:
            self.wake()
        elif self._farewell and not self.streams:
            self._session.close()
            self._send_staged()
            self._close("")

    def _send_staged(self) -> bool:
        connection = self._connection
        try:
            if connection is not None and connection.staged:
                self._session.write(connection.outgoing())
                connection.sent()
            sealed = self._session.take_out()
        except (TlsFailed, TlsClosed) as error:
            self._close(str(error))
            return False
        if sealed and self._transport is not None:
            self._transport.write(bytes(sealed))  # the view is everybody's
        return True

    # --- time

    def _restart_timer(self, seconds: float, callback: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, callback)  # type: ignore[arg-type]

    def _handshake_timed_out(self) -> None:
        self.fail(f"no TLS handshake and HTTP/2 SETTINGS within {HANDSHAKE_TIMEOUT:g} s")

    def _tick(self) -> None:
        """Every PING_INTERVAL: is the peer alive, does it read, is the tunnel still needed?"""
        assert self._connection is not None
        now = self.loop.time()
        for since, what in ((self._unanswered_since, "answered a PING"), (self._stuck_since, "read anything")):
            if since is not None and now - since >= PING_TIMEOUT:
                self.fail(f"the peer has not {what} for {now - since:.0f} s")
                return
        if not self.streams and now - self.idle_since >= self._most_idle():
            self.retire()
            return
        if self._unanswered_since is None:
            self._unanswered_since = now
        if not self._paused:
            self._session.tidy()
            self._connection.ping(PING)
            self.mark()
        self._restart_timer(PING_INTERVAL, self._tick)

    # --- HTTP/2 says (mesh.hbone.Handler)

    def limits_changed(self) -> None:
        if not self._settings_came:
            self._settings_came = True
            if not self._farewell:
                self._restart_timer(PING_INTERVAL, self._tick)
        self._room_made()  # the peer may allow more of them now

    def ping_acknowledged(self, payload: bytes) -> None:
        self._unanswered_since = None  # any byte that comes proves as much

    def going_away(self, last_stream: int, code: int, reason: bytes) -> None:
        self.retired = True
        if not self.streams:
            self._say_farewell()
        self._room_made()

    # --- roles

    @abstractmethod
    def _check_peer(self, session: TlsSession) -> SpiffeId:
        """Raises PeerRejected."""

    @abstractmethod
    def _established(self) -> None:
        """TLS is through and the peer is who it must be."""

    @abstractmethod
    def _gone(self, reason: str) -> None:
        """It is closed; `reason` is "" when that was on purpose."""

    @abstractmethod
    def _room_made(self) -> None:
        """There may be room for another stream, or the tunnel takes none any more."""

    @abstractmethod
    def _most_idle(self) -> float:
        """Seconds that it may stand without streams."""
