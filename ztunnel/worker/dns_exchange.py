"""One query forwarded over UDP: a socket and a random number of its own, so that a forger has to guess both
(RFC 5452), and only the resolver that was asked can answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from mesh.model.address import SocketAddress, is_v6
from ztunnel.dns.message import LARGEST_MESSAGE, answers, number_of, renumbered
from ztunnel.worker.dns_context import RESOLVER_TIMEOUT, OpenSocket
from ztunnel.worker.loop import Loop, Timer

MAX_WRONG = 64  # datagrams that do not answer the query: more is an attempt to guess it


class Exchange:
    """Ends in one call of `done`: with the response, numbered as the query was, or None when there is none."""

    def __init__(self, loop: Loop, query: bytes, resolver: SocketAddress, done: Callable[[bytes | None], None]) -> None:
        self._loop = loop
        self._number = number_of(query)
        self._query = renumbered(query, int.from_bytes(os.urandom(2), "big"))
        self._resolver = resolver
        self._done = done
        self._wrong = 0
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None

    def start(self, open_socket: OpenSocket) -> None:
        """May call `done` before it returns."""
        resolver = self._resolver
        try:
            self._sock = open_socket(socket.AF_INET6 if is_v6(resolver.ip) else socket.AF_INET, socket.SOCK_DGRAM)
            self._sock.connect((resolver.ip, resolver.port))
            self._sock.send(self._query)
        except OSError:
            self._end(None)
            return
        self._timer = self._loop.later(RESOLVER_TIMEOUT, self._timed_out)
        self._loop.watch(self._sock.fileno(), self._event)

    def cancel(self) -> None:
        """Without a call of `done`."""
        self._done = lambda response: None
        self._end(None)

    def crash(self, reason: str) -> None:
        self._end(None)

    def _event(self, event: int) -> None:
        while self._sock is not None:
            try:
                response = self._sock.recv(LARGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:  # the resolver's host says that nobody listens
                self._end(None)
                return
            if answers(response, self._query):
                self._end(renumbered(response, self._number))
                return
            self._wrong += 1
            if self._wrong > MAX_WRONG:
                self._end(None)

    def _timed_out(self) -> None:
        self._end(None)

    def _end(self, response: bytes | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sock is not None:
            self._loop.discard(self._sock)
            self._sock = None
        done, self._done = self._done, lambda response: None
        done(response)
