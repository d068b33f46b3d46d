"""The DNS proxy of one pod: answers what the mesh knows, hands the rest to the resolver that the app has asked.

Queries come from loopback, captured by the kernel; each answer leaves from the socket that got the query. Forwarding is
done from inside the pod's namespace, so that the pod's own network and policies apply.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

from mesh.model.address import SocketAddress, from_kernel
from ztunnel.dns.message import LARGEST_MESSAGE, is_query
from ztunnel.worker.dns_context import DnsContext
from ztunnel.worker.dns_conversation import Conversation
from ztunnel.worker.dns_exchange import Exchange
from ztunnel.worker.loop import IN

MAX_EXCHANGES = 1024  # forwarded UDP queries at once: each holds a descriptor for up to 5 s if the resolver is dead
MAX_CONVERSATIONS = 256  # TCP clients at once: each holds two descriptors and up to 512 KiB
BATCH = 64  # datagrams and accepted connections of one turn: others must have their turn, too
ARRIVALS = IN | select.EPOLLET
ACCEPT_PAUSE = 1.0  # seconds until the next try when descriptors have run out: edges are not repeated


class DnsProxy:
    """Serves on the given non-blocking sockets, which it owns, until `close`."""

    def __init__(
        self, context: DnsContext, datagram_sockets: Sequence[socket.socket], listeners: Sequence[socket.socket]
    ) -> None:
        self._context = context
        self._exchanges: set[Exchange] = set()
        self._conversations: set[Conversation] = set()
        self._sockets = [*datagram_sockets, *listeners]
        for sock in datagram_sockets:
            context.loop.watch(sock.fileno(), _handler(self._receive, sock), ARRIVALS)
        for listener in listeners:
            context.loop.watch(listener.fileno(), _handler(self._accept, listener), ARRIVALS)

    @property
    def outstanding(self) -> int:
        """Queries that wait for a resolver over UDP, and TCP clients."""
        return len(self._exchanges) + len(self._conversations)

    def close(self) -> None:
        """Queries under way get no answer: the app asks again, past the mesh."""
        for sock in self._sockets:  # the agent holds the same sockets: closing ours would not end the registration
            self._context.loop.forget(sock.fileno())
            self._context.loop.discard(sock)
        self._sockets = []
        for exchange in self._exchanges:
            exchange.cancel()
        self._exchanges.clear()
        for conversation in tuple(self._conversations):
            conversation.close()

    # --- UDP

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            if sock not in self._sockets:
                return
            try:
                data, source = sock.recvfrom(LARGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:  # of an earlier answer that could not be delivered
                continue
            # For every datagram: the kernel has noted the resolver of this one, and looking it up takes the note away.
            resolver = self._context.resolver(_address(source), sock)
            if is_query(data):
                self._query(sock, data, source, resolver)
        self._context.loop.soon(lambda: self._receive(sock))

    def _query(self, sock: socket.socket, data: bytes, source: tuple[Any, ...], resolver: SocketAddress | None) -> None:
        context = self._context
        reply = context.answer(data, datagram=True)
        if reply is not None:
            self._reply(sock, reply, source)
            return
        if resolver is None:
            self._reply(sock, context.failure(data), source)
            return
        if len(self._exchanges) >= MAX_EXCHANGES:
            context.counts["dns_refused"] += 1
            self._reply(sock, context.failure(data), source)
            return

        def done(response: bytes | None) -> None:
            self._exchanges.discard(exchange)
            self._reply(sock, context.failure(data) if response is None else response, source)

        context.counts["dns_forwarded"] += 1
        exchange = Exchange(context.loop, data, resolver, done)
        self._exchanges.add(exchange)
        exchange.start(context.open_socket)

    def _reply(self, sock: socket.socket, reply: bytes, source: tuple[Any, ...]) -> None:
        try:
            sock.sendto(reply, source)
        except OSError:  # the app has gone, or takes nothing: it asks again
            self._context.counts["dns_undelivered"] += 1

    # --- TCP

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(BATCH):
            if listener not in self._sockets:
                return
            try:
                sock, source = listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:  # ended before it was accepted
                continue
            except OSError:
                self._context.loop.later(ACCEPT_PAUSE, lambda: self._accept(listener))
                return
            self._converse(sock, source)
        self._context.loop.soon(lambda: self._accept(listener))

    def _converse(self, sock: socket.socket, source: tuple[Any, ...]) -> None:
        if len(self._conversations) >= MAX_CONVERSATIONS:
            self._context.counts["dns_refused"] += 1
            sock.close()
            return
        sock.setblocking(False)
        resolver = self._context.resolver(_address(source), sock)
        conversation = Conversation(self._context, sock, resolver, self._conversations.discard)
        self._conversations.add(conversation)
        conversation.start()


def _address(source: tuple[Any, ...]) -> SocketAddress:
    return SocketAddress(from_kernel(source[0]), source[1])


def _handler(serve: Callable[[socket.socket], None], sock: socket.socket) -> Callable[[int], None]:
    return lambda event: serve(sock)
