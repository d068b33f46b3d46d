"""One tunnel: a TCP socket, TLS in memory, and an HTTP/2 connection full of streams.

Everything that a turn of the loop stages, for all streams, leaves in one TLS write and one send. While the network is
not taking ciphertext nothing more is encrypted, so the staging buffer fills up and the streams stop reading their apps.
Until the peer has proved who it is, not a byte of HTTP/2 is sent.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable

from mesh.hbone import CLIENT_LIMITS, SERVER_LIMITS, Budget, Connection, ConnectionFailed, ErrorCode, Limits, Role
from mesh.identity.errors import PeerRejected, TlsClosed, TlsFailed
from mesh.identity.session import RECEIVE_SIZE, TlsSession, ciphertext
from mesh.model.identity import SpiffeId
from ztunnel.plan.plan import Flag
from ztunnel.worker.context import Context
from ztunnel.worker.loop import HANGUP, OUT, Callback, Timer
from ztunnel.worker.occupants import Occupant, Occupants
from ztunnel.worker.sockets import say

FAREWELL_TIMEOUT = 5.0  # for the last bytes of a tunnel that is closed on purpose
PING = b"ambit-ka"
WINDOW_GROWTH = 64 << 20  # by which all windows of the process may grow: 16 streams at full speed, and a bound

# What is decrypted is used up before anything else runs, so one buffer serves all tunnels of the process.
_plaintext = memoryview(bytearray(RECEIVE_SIZE + SERVER_LIMITS.max_header_list))
_growth = Budget(WINDOW_GROWTH)


class Tunnel(Occupants, ABC):
    """Both roles; what differs is below `# --- roles`. Also the `Handler` of its HTTP/2 connection."""

    is_client: bool

    def __init__(self, context: Context, sock: socket.socket, session: TlsSession) -> None:
        super().__init__()
        self.loop = loop = context.loop
        self.settings = settings = context.settings
        self._open_tunnels = context.tunnels
        self._open_tunnels.add(self)
        self._lingering = context.lingering
        self.peer: SpiffeId | None = None
        self.retired = False  # takes no new streams and closes after the last
        self.closed = False
        self._sock = sock
        self._session = session
        self._connection: Connection | None = None
        self._settings_came = False
        self._pending: memoryview | None = None  # ciphertext that the kernel has not taken
        self._marked = False
        self._farewell = False  # GOAWAY is said: end once everything is sent
        self._shut = False  # our end is said; the peer's is awaited
        self._waiting: list[Occupant] = []
        self._timer: Timer | None = loop.later(settings.handshake_timeout, self._handshake_timed_out)
        self._unanswered_since: float | None = None
        self._unmoved: memoryview | None = None  # what was pending at the last tick
        self._unmoved_since = loop.now
        self._idle_since = loop.now
        self.heard = loop.now  # when the peer last said something

    def begin(self) -> None:
        """Starts the handshake. The socket is watched already; its handler becomes `event`."""
        self.loop.hand_over(self._sock.fileno(), self.event)
        self._receive()

    @property
    def usable(self) -> bool:
        """Whether new streams may be opened on it, now or when others have ended."""
        connection = self._connection
        return connection is not None and not self.closed and not self.retired and not connection.is_going_away

    def unsent(self) -> int:
        """Bytes for the peer that the kernel has not taken: staged frames, and ciphertext."""
        staged = self._connection.staged if self._connection is not None else 0
        return staged + (len(self._pending) if self._pending is not None else 0)

    # --- for streams

    def reserve(self, stream: int) -> memoryview | None:
        assert self._connection is not None
        return self._connection.reserve(stream)

    def commit(self, stream: int, size: int) -> None:
        assert self._connection is not None
        self._connection.commit(stream, size)
        if not self._marked:
            self._mark()

    def wait(self, stream: int, occupant: Occupant) -> None:
        """After `reserve` gave nothing: `writable` is called when there may be room."""
        assert self._connection is not None
        if not self._connection.starved(stream):  # else the peer's WINDOW_UPDATE for it wakes it
            self._waiting.append(occupant)

    def acknowledge(self, stream: int, size: int) -> None:
        if self._connection is not None and not self.closed:
            self._connection.acknowledge(stream, size)
            if not self._marked and self._connection.staged:
                self._mark()

    def end(self, stream: int) -> None:
        if self._connection is not None and not self.closed:
            self._connection.end(stream)
            self._mark()

    def reset(self, stream: int, code: ErrorCode) -> None:
        if self._connection is not None and not self.closed:
            self._connection.reset(stream, code)
            self._mark()

    def release(self, stream: int) -> None:
        """The occupant has left; END_STREAM both ways or RST_STREAM has been said."""
        if self.streams.pop(stream, None) is None or self.closed:
            return
        if not self.streams:
            self._idle_since = self.loop.now
            if self.retired:
                self._say_farewell()
        self._stream_released()

    # --- the end

    def retire(self, reason: str = "") -> None:
        """No new streams; closes when those that stand have ended."""
        if self.closed or self.retired:
            return
        self.retired = True
        if self._connection is None:
            self._fail(Flag.CONNECT, reason or "the tunnel is not needed any more")
            return
        if not self.is_client:
            self._connection.go_away()
            self._mark()
        if not self.streams:
            self._say_farewell()
        self._stream_released()

    def break_off(self, reason: str) -> None:
        """Ends everything on it now."""
        if not self.closed:
            self._fail(Flag.NONE, reason)

    def crash(self, reason: str) -> None:
        self.break_off(reason)

    def _say_farewell(self) -> None:
        assert self._connection is not None
        if self._farewell:
            return
        self._farewell = True
        if self.is_client:
            self._connection.go_away()
        self._restart_timer(FAREWELL_TIMEOUT, self._farewell_timed_out)
        self._mark()

    def _farewell_timed_out(self) -> None:
        self._fail(Flag.NONE, "the peer does not read")

    def _fail(self, flag: Flag, reason: str) -> None:
        """Everything on it breaks; what is staged (an alert, a GOAWAY) leaves if the kernel takes it."""
        if self.closed:
            return
        has_last_words = self._pending is None and not self._shut and self._flush_last()
        self._close(self._lingering.close if has_last_words else self.loop.discard)
        established = self.peer is not None
        for occupant in list(self.streams.values()):
            occupant.lost(reason)
        self.streams.clear()
        self._gone(flag, "" if self._shut else reason, established)

    def _flush_last(self) -> bool:
        """Whether something has left."""
        try:
            if self._connection is not None and self._connection.staged:
                self._session.write(self._connection.outgoing())
                self._connection.sent()
            return bool(self._session.pending_out) and self._sock.send(self._session.take_out()) > 0
        except (TlsFailed, TlsClosed, OSError):
            return False

    def _close(self, dispose: Callable[[socket.socket], None]) -> None:
        self.closed = True
        self._open_tunnels.discard(self)
        self._waiting.clear()
        if self._connection is not None:
            self._connection.release()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        dispose(self._sock)

    # --- the socket

    def event(self, event: int) -> None:
        if self.closed:
            return
        if event & OUT and self._pending is not None:
            self._send_pending()
        if event & ~OUT and not self.closed:
            self._receive(event & HANGUP)

    def _receive(self, hangup: int = 0) -> None:
        if self.closed:
            return
        try:
            size = self._sock.recv_into(ciphertext)
        except BlockingIOError:
            size = -1
        except OSError as error:
            self._fail(self._flag(), f"the peer's connection broke: {say(error.errno or 0)}")
            return
        if size > 0:
            self._session.feed(size)
            self._unanswered_since = None
            self.heard = self.loop.now
        elif size == 0:
            self._session.feed_eof()
        self._take_in()
        if (size == RECEIVE_SIZE or (hangup and size > 0)) and not self.closed:
            self.loop.soon(self._receive_rest)

    def _receive_rest(self) -> None:
        self._receive(HANGUP)

    def _take_in(self) -> None:
        try:
            if self._connection is None and not self._shake_hands():
                return
            self._decrypt()
        except (TlsFailed, PeerRejected, TlsClosed) as error:
            self._fail(self._flag(), str(error))
        except ConnectionFailed as error:
            self._fail(Flag.H2_HANDSHAKE_FAILURE, f"the peer broke HTTP/2: {error}")

    def _shake_hands(self) -> bool:
        """Whether the peer is known now and HTTP/2 has begun."""
        done = self._session.handshake()
        if not done:
            self._mark()
            return False
        self.peer = self._check_peer(self._session)
        self._connection = Connection(self._role(), self, self._limits(), _plaintext, _growth)
        self._restart_timer(self.settings.preface_timeout, self._preface_timed_out)
        self._mark()
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
            self._mark()

    def _flag(self) -> Flag:
        if self._connection is None:
            return Flag.TLS_FAILURE
        return Flag.NONE if self._settings_came else Flag.H2_HANDSHAKE_FAILURE

    # --- output

    def _mark(self) -> None:
        if not self._marked:
            self._marked = True
            self.loop.flush_later(self)

    def flush(self) -> None:
        self._marked = False
        connection = self._connection
        if connection is not None and connection.failure is not None:
            self._fail(Flag.NONE, f"the peer broke HTTP/2: {connection.failure}")
        if self.closed or self._shut or self._pending is not None:
            return
        try:
            if connection is not None and connection.staged:
                self._session.write(connection.outgoing())
                connection.sent()
            sealed = self._session.take_out()
        except TlsFailed as error:
            self._fail(self._flag(), str(error))
            return
        sent = self._send(sealed) if sealed else 0
        if sent == len(sealed):
            self._all_sent()
        elif not self.closed:
            self._pending = memoryview(bytes(sealed[sent:]))  # what take_out returned is everybody's

    def _send_pending(self) -> None:
        assert self._pending is not None
        sent = self._send(self._pending)
        if sent == len(self._pending):
            self._pending = None
            self._all_sent()
        elif sent and not self.closed:
            self._pending = self._pending[sent:]

    def _send(self, sealed: memoryview) -> int:
        """How much of it the kernel has taken."""
        try:
            return self._sock.send(sealed)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._pending = None
            self._fail(self._flag(), f"the peer's connection broke: {say(error.errno or 0)}")
            return 0

    def _all_sent(self) -> None:
        connection = self._connection
        if connection is not None and connection.staged:
            self._mark()  # staged while the kernel was not taking anything
            self._wake()
        elif self._farewell and not self.streams:
            self._shut_down()
        elif self._waiting:
            self._wake()

    def _shut_down(self) -> None:
        """Not close: with something unread that would be RST, and could take what we sent last with it."""
        self._session.close()
        self._flush_last()
        self._shut = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail(Flag.NONE, say(error.errno or 0))

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for occupant in waiting:
            occupant.writable()

    # --- time

    def _restart_timer(self, seconds: float, callback: Callback) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.later(seconds, callback)

    def _handshake_timed_out(self) -> None:
        self._fail(Flag.TLS_FAILURE, f"no TLS handshake within {self.settings.handshake_timeout:g} s")

    def _preface_timed_out(self) -> None:
        self._fail(Flag.H2_HANDSHAKE_FAILURE, f"no HTTP/2 SETTINGS within {self.settings.preface_timeout:g} s")

    def _tick(self) -> None:
        """Every `ping_interval`: is the peer alive, is the tunnel still needed?"""
        assert self._connection is not None
        since, now = self._unanswered_since, self.loop.now
        if since is not None and now - since >= self.settings.ping_timeout:
            self._fail(Flag.NONE, f"the peer has not answered a PING for {now - since:.0f} s")
            return
        if self._is_stuck(now):
            self._fail(Flag.NONE, f"the peer has not read anything for {now - self._unmoved_since:.0f} s")
            return
        if self._idle_too_long(now):
            self.retire()
            return
        if since is None:
            self._unanswered_since = now
        if self._pending is None:
            self._session.tidy()
            self._connection.ping(PING)
            self._mark()
        self._restart_timer(self.settings.ping_interval, self._tick)

    def _is_stuck(self, now: float) -> bool:
        """A peer may send and send, and never read: a PING does not find that out, since none gets through."""
        if self._pending is None or self._pending is not self._unmoved:
            self._unmoved, self._unmoved_since = self._pending, now
        return now - self._unmoved_since >= self.settings.ping_timeout and self._pending is not None

    def _role(self) -> Role:
        return Role.CLIENT if self.is_client else Role.SERVER

    def _idle_too_long(self, now: float) -> bool:
        most = self.settings.pool_idle if self.is_client else self.settings.inbound_idle
        return not self.streams and now - self._idle_since >= most

    # --- HTTP/2 says of the connection (mesh.hbone.Handler)

    def request_received(self, stream: int, headers: dict[str, str], ended: bool) -> None:
        raise NotImplementedError  # only a server's connection calls it

    def connection_writable(self) -> None:
        if self._waiting:
            self._wake()

    def limits_changed(self) -> None:
        if not self._settings_came:
            self._settings_came = True
            if not self._farewell:
                self._restart_timer(self.settings.ping_interval, self._tick)
        self._stream_released()  # the peer may allow more of them now

    def ping_acknowledged(self, payload: bytes) -> None:
        self._unanswered_since = None  # any byte that comes proves as much

    def going_away(self, last_stream: int, code: int, reason: bytes) -> None:
        self.retired = True  # streams that were not processed are reset after this, and look for another tunnel
        if not self.streams:
            self._say_farewell()
        self._stream_released()

    # --- roles

    def _limits(self) -> Limits:
        """What we grant to the peer."""
        return CLIENT_LIMITS

    @abstractmethod
    def _check_peer(self, session: TlsSession) -> SpiffeId:
        """Raises PeerRejected."""

    @abstractmethod
    def _established(self) -> None:
        """TLS is through and the peer is who it must be."""

    @abstractmethod
    def _gone(self, flag: Flag, reason: str, established: bool) -> None:
        """It is closed; `reason` is "" when that was on purpose."""

    @abstractmethod
    def _stream_released(self) -> None:
        """There may be room for another stream, or the tunnel takes none any more."""
