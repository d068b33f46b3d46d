"""The resolver of a node: listens on the mesh's resolver addresses in the node's network namespace.

What is no name of the cluster goes to the machine's own resolvers, from the machine's own network: pods have no way
there, and need none for names.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import cast

from dnslib import RCODE, DNSError, DNSQuestion, DNSRecord

from deploy.local import namespaces
from deploy.local.addresses import DNS_V4, DNS_V6
from deploy.local.dns import answer
from deploy.local.dns.names import Names
from mesh.model.address import Ip, SocketAddress, is_v6

log = logging.getLogger("dns")

PORT = 53
FORWARD_TIMEOUT = 2.0  # seconds per resolver; an app asks again after five
MOST_FORWARDED = 256  # at once: a flood of names outside must not take the node's memory
LONGEST_TCP_WAIT = 10.0  # RFC 7766 asks for "a few seconds" of patience with idle connections
LARGEST_MESSAGE = 65535


class DnsServer:
    """`names` is asked for the present names at each query."""

    def __init__(self, names: Callable[[], Names], domain: str, upstream: tuple[SocketAddress, ...]) -> None:
        self._names, self._domain, self._upstream = names, domain, upstream
        self._turn = 0
        self._forwarding = asyncio.Semaphore(MOST_FORWARDED)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, netns: Path) -> None:
        """Raises OSError: the port is taken."""
        loop = asyncio.get_running_loop()
        for ip in (DNS_V4, DNS_V6):
            datagrams, stream = namespaces.inside(netns, lambda ip=ip: (_udp(ip), _tcp(ip)))  # type: ignore[misc]
            await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
            await asyncio.start_server(self._serve_stream, sock=stream)

    def begin(self, data: bytes, reply: Callable[[bytes], None]) -> None:
        """Answer a datagram, in a task of its own."""
        if len(self._tasks) >= 4 * MOST_FORWARDED:
            return  # the asker tries again; an answer that waits for its turn would come too late anyway
        task = asyncio.create_task(self._answer_datagram(data, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(self, data: bytes, reply: Callable[[bytes], None]) -> None:
        query = _parse(data)
        if query is not None:
            found = await self._own(query)
            reply(answer.fit(found, query) if found is not None else await self._forward(data, query, stream=False))

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(LONGEST_TCP_WAIT):
                    data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                query = _parse(data)
                if query is None:
                    return
                found = await self._own(query)
                message = found.pack() if found is not None else await self._forward(data, query, stream=True)
                writer.write(len(message).to_bytes(2, "big") + message)
                await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _own(self, query: DNSRecord) -> DNSRecord | None:
        self._turn += 1
        reply = answer.answer(query, self._names(), self._domain, self._turn)
        if reply is not None and (target := answer.open_alias(reply, self._domain)):
            await self._resolve_alias(reply, target)
        return reply

    async def _resolve_alias(self, reply: DNSRecord, target: str) -> None:
        """Adds what others know of the name that an alias leads to: stub resolvers do not ask for it themselves."""
        question = DNSRecord(q=DNSQuestion(target, reply.q.qtype))
        found = _message(await self._forward(question.pack(), question, stream=True))
        if found is None:
            reply.header.rcode = RCODE.SERVFAIL
            return
        reply.header.rcode = found.header.rcode
        reply.add_answer(*found.rr)

    async def _forward(self, data: bytes, query: DNSRecord, stream: bool) -> bytes:
        ask = _ask_stream if stream else _ask_datagram
        async with self._forwarding:
            for resolver in self._upstream:
                try:
                    async with asyncio.timeout(FORWARD_TIMEOUT):
                        return await ask(resolver, data)
                except (OSError, EOFError, TimeoutError) as error:
                    log.debug("resolver %s does not answer: %s", resolver, error or type(error).__name__)
        return bytes(answer.failure(query).pack())


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own class is not a subclass of it

    def datagram_received(self, data: bytes, source: tuple[str, int]) -> None:
        self._server.begin(data, lambda reply: self._transport.sendto(reply, source))


def resolvers(resolv_conf: str) -> tuple[SocketAddress, ...]:
    """The nameservers of a resolv.conf; lines that cannot be read are passed over."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(SocketAddress.parse(f"[{words[1]}]:53" if ":" in words[1] else f"{words[1]}:53"))
            except ValueError:
                log.warning("resolv.conf: %r is not an address", words[1])
    return tuple(found)


def _parse(data: bytes) -> DNSRecord | None:
    """None for what is no query: it gets no answer."""
    query = _message(data)
    return query if query is not None and query.questions and query.header.qr == 0 else None


def _message(data: bytes) -> DNSRecord | None:
    try:
        return DNSRecord.parse(data)
    except (DNSError, ValueError, IndexError):
        return None


def _family(ip: Ip) -> socket.AddressFamily:
    return socket.AF_INET6 if is_v6(ip) else socket.AF_INET


def _udp(ip: Ip) -> socket.socket:
    listener = socket.socket(_family(ip), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    listener.bind((ip, PORT))
    return listener


def _tcp(ip: Ip) -> socket.socket:
    listener = socket.socket(_family(ip), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((ip, PORT))
    listener.listen(128)
    return listener


async def _ask_datagram(resolver: SocketAddress, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(_family(resolver.ip), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        asking.connect((resolver.ip, resolver.port))
        await loop.sock_sendall(asking, data)
        while True:
            found = await loop.sock_recv(asking, LARGEST_MESSAGE)
            if found[:2] == data[:2]:
                return found


async def _ask_stream(resolver: SocketAddress, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(resolver.ip, resolver.port)
    try:
        writer.write(len(data).to_bytes(2, "big") + data)
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
