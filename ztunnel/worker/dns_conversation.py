"""DNS over TCP (RFC 7766): one app connection, and one to its resolver as soon as a query has to be forwarded.

Messages are framed by two bytes of length on both sides. Nothing is read for which there is no room, so a slow reader
holds a bounded amount on either side.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from mesh.model.address import SocketAddress, is_v6
from ztunnel.dns.message import is_query, number_of
from ztunnel.worker.dns_context import RESOLVER_TIMEOUT, DnsContext
from ztunnel.worker.loop import Timer

ROOM = 128 << 10  # bytes that may wait for one side: two of the longest messages
MAX_PENDING = 64  # queries that wait for the resolver; beyond it nothing is read
LONGEST_QUESTION = 12 + 255 + 4  # header, name, type and class
CHUNK = 64 << 10
ROUNDS = 16  # of work in one turn: a long zone transfer leaves room for others


class Conversation:
    """Lives until the app is done, nothing has happened for a time-out, or either side misbehaves."""

    def __init__(
        self,
        context: DnsContext,
        sock: socket.socket,
        resolver: SocketAddress | None,
        closed: Callable[[Conversation], None],
    ) -> None:
        self._context = context
        self._app = _Side(sock)
        self._resolver: _Side | None = None
        self._resolver_address = resolver
        self._closed = closed
        self._pending: dict[int, bytes] = {}  # by number, as much of each forwarded query as its failure would repeat
        self._timer: Timer | None = None
        self._alive = True

    def start(self) -> None:
        self._context.loop.watch(self._app.sock.fileno(), self._event)
        self._timer = self._context.loop.later(RESOLVER_TIMEOUT, self._timed_out)

    def close(self) -> None:
        if not self._alive:
            return
        self._alive = False
        if self._timer is not None:
            self._timer.cancel()
        self._hang_up()
        self._context.loop.discard(self._app.sock)
        self._closed(self)

    def crash(self, reason: str) -> None:
        self.close()

    # --- moving bytes

    def _event(self, event: int) -> None:
        self._work()

    def _work(self) -> None:
        moved = False
        for _ in range(ROUNDS):
            if not self._alive or not self._move():
                break
            moved = True
        else:
            self._context.loop.soon(self._work)
        if self._alive and moved:
            self._restart_timer()
        if self._alive and self._app.ended and not self._pending and not self._app.outgoing:
            self.close()

    def _move(self) -> bool:
        """One round over both sides; whether anything moved."""
        app = self._app
        try:
            moved = app.write()
            if self._room():
                moved |= app.read()
        except OSError:
            self.close()
            return False
        moved |= self._move_resolver()
        while self._alive and self._room() and (query := app.message()) is not None:
            self._query(query)
            moved = True
        return moved

    def _room(self) -> bool:
        """Whether one more query can be taken."""
        if len(self._app.outgoing) >= ROOM or len(self._pending) >= MAX_PENDING:
            return False
        return self._resolver is None or len(self._resolver.outgoing) < ROOM

    def _move_resolver(self) -> bool:
        resolver = self._resolver
        if resolver is None:
            return False
        try:
            moved = resolver.write()
            if len(self._app.outgoing) < ROOM:
                moved |= resolver.read()
        except OSError:
            self._fail_pending()
            return True
        while (response := resolver.message()) is not None:
            self._pending.pop(number_of(response), None)
            self._app.put(response)
        if resolver.ended:
            self._fail_pending()
        return moved

    # --- queries

    def _query(self, query: bytes) -> None:
        if not is_query(query):
            self.close()
            return
        reply = self._context.answer(query, datagram=False)
        if reply is None and self._connect():
            assert self._resolver is not None
            self._context.counts["dns_forwarded"] += 1
            self._pending[number_of(query)] = query[:LONGEST_QUESTION]
            self._resolver.put(query)
        else:
            self._app.put(reply or self._context.failure(query))

    def _connect(self) -> bool:
        """Whether there is a connection to the resolver, or one in progress."""
        address = self._resolver_address
        if self._resolver is not None or address is None:
            return self._resolver is not None
        family = socket.AF_INET6 if is_v6(address.ip) else socket.AF_INET
        try:
            sock = self._context.open_socket(family, socket.SOCK_STREAM)
        except OSError:
            return False
        code = sock.connect_ex((address.ip, address.port))
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            return False
        self._resolver = _Side(sock)
        self._context.loop.watch(sock.fileno(), self._event)
        return True

    def _fail_pending(self) -> None:
        """The resolver has gone: what it owes is answered for it, a later query tries again."""
        self._hang_up()
        for query in self._pending.values():
            self._app.put(self._context.failure(query))
        self._pending.clear()

    def _hang_up(self) -> None:
        if self._resolver is not None:
            self._context.loop.discard(self._resolver.sock)
            self._resolver = None

    # --- time

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._context.loop.later(RESOLVER_TIMEOUT, self._timed_out)

    def _timed_out(self) -> None:
        if self._pending:
            self._fail_pending()
            self._restart_timer()
            self._work()
        else:
            self.close()


class _Side:
    """One connection: what has been read of it, and what is to be written to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.outgoing = bytearray()
        self.ended = False
        self._incoming = bytearray()

    def read(self) -> bool:
        """Whether something came. Raises OSError."""
        if self.ended or self._complete():
            return False
        try:
            data = self.sock.recv(CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.ENOTCONN:  # still connecting
                return False
            raise
        self.ended = not data
        self._incoming += data
        return True

    def message(self) -> bytes | None:
        """The next whole message."""
        if not self._complete():
            return None
        end = 2 + int.from_bytes(self._incoming[:2], "big")
        message = bytes(self._incoming[2:end])
        del self._incoming[:end]
        return message

    def put(self, message: bytes) -> None:
        self.outgoing += len(message).to_bytes(2, "big") + message

    def write(self) -> bool:
        """Whether something left. Raises OSError."""
        if not self.outgoing:
            return False
        try:
            sent = self.sock.send(self.outgoing)
        except BlockingIOError:
            return False
        del self.outgoing[:sent]
        return sent > 0

    def _complete(self) -> bool:
        return len(self._incoming) >= 2 and len(self._incoming) >= 2 + int.from_bytes(self._incoming[:2], "big")
