"""The tunnels that this waypoint has opened, and the channels in them.

Tunnels of one (peer, expected identities) are shared by all: they prove the waypoint's own identity. Whom a stream in
them serves, its CONNECT says. Of one key at most one dial is under way; all callers wait for the same attempt and fail
with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from mesh.hbone import CLIENT_LIMITS, Limits, Role
from mesh.identity.errors import TlsFailed
from mesh.identity.peers import check_server
from mesh.identity.tls import TlsIdentity, TlsSession, client_context
from mesh.model.address import SocketAddress
from mesh.model.identity import SpiffeId
from waypoint.channel import Channel
from waypoint.streams import Stream
from waypoint.tunnel.tunnel import STREAM_WINDOW, Tunnel

CONNECT_TIMEOUT = 10.0  # seconds for TCP; a dead host is known after 3 SYNs
RESPONSE_TIMEOUT = 20.0  # from CONNECT to its response: the peer may be dialling an app that is dead
MOST_STREAMS = 100  # of one tunnel, if the peer allows as many: Istio's
MOST_WAITING = 4096  # callers for one dial; beyond it they are refused
IDLE = 300.0  # seconds that a tunnel without streams is kept

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Key:
    peer: SocketAddress
    expected: frozenset[SpiffeId]


class Opening:
    """A channel that is being opened: `opened` or `failed` is called, once, unless it is cancelled."""

    __slots__ = ("authority", "cancelled", "failed", "headers", "opened", "stream", "timer", "tunnel")

    def __init__(
        self, authority: str, headers: Headers, opened: Callable[[Channel], None], failed: Callable[[str], None]
    ) -> None:
        self.authority = authority
        self.headers = headers
        self.opened = opened
        self.failed = failed
        self.cancelled = False
        self.tunnel: ClientTunnel | None = None
        self.stream: Stream | None = None
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        self.cancelled = True
        self.settle()
        if self.stream is not None:
            self.stream.reset()

    def settle(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def fail(self, reason: str) -> None:
        self.settle()
        if not self.cancelled:
            self.cancelled = True
            self.failed(reason)

    # --- as the user of its stream, until the response

    def received(self, pieces: list[memoryview]) -> None: ...

    def ended(self) -> None: ...

    def drained(self) -> None: ...

    def lost(self, reason: str) -> None:
        self.fail(reason)


class ClientTunnel(Tunnel):
    """A tunnel that we opened."""

    role: ClassVar[Role] = Role.CLIENT
    limits: ClassVar[Limits] = replace(CLIENT_LIMITS, initial_window=STREAM_WINDOW, stream_window=STREAM_WINDOW)

    def __init__(self, shelf: Shelf, session: TlsSession) -> None:
        super().__init__(shelf.loop, session)
        self._shelf = shelf
        self._opening: dict[int, Opening] = {}

    @property
    def has_room(self) -> bool:
        connection = self._connection
        if connection is None or self.closed or self.retired or len(self.streams) >= MOST_STREAMS:
            return False
        return connection.available_streams > 0

    def open(self, opening: Opening) -> None:
        """`has_room` must hold."""
        assert self._connection is not None
        number = self._connection.open(opening.authority, opening.headers)
        stream = Stream(self, number, opening)
        self.streams[number] = stream
        self._opening[number] = opening
        opening.tunnel, opening.stream = self, stream
        opening.timer = self.loop.call_later(RESPONSE_TIMEOUT, self._unanswered, number)
        self.mark()

    def response_received(self, stream: int, status: int, headers: dict[str, str], ended: bool) -> None:
        opening, found = self._opening.pop(stream, None), self.streams.get(stream)
        if opening is None or found is None:
            return
        opening.settle()
        if status == 200 and not opening.cancelled:
            found.in_ended = ended
            opening.cancelled = True
            opening.opened(found)
            return
        found.reset()
        opening.fail(f"the tunnel's end {self._shelf.key.peer} answered {status}")

    def _unanswered(self, stream: int) -> None:
        opening = self._opening.pop(stream, None)
        if opening is not None and opening.stream is not None:
            opening.stream.reset()
            opening.fail(f"no answer to CONNECT within {RESPONSE_TIMEOUT:g} s")

    def release(self, stream: int) -> None:
        self._opening.pop(stream, None)
        super().release(stream)

    def _check_peer(self, session: TlsSession) -> SpiffeId:
        return check_server(session.peer_identities(), self._shelf.key.expected)

    def _established(self) -> None:
        self._shelf.established(self)

    def _gone(self, reason: str) -> None:
        self._shelf.gone(self, reason)

    def _room_made(self) -> None:
        self._shelf.stream_released(self)

    def _most_idle(self) -> float:
        return IDLE


class Shelf:
    """All tunnels of one key and the openings that wait for one. Forgotten when it is empty."""

    def __init__(self, pool: Pool, key: Key) -> None:
        self.loop = pool.loop
        self.key = key
        self._pool = pool
        self._tunnels: list[ClientTunnel] = []
        self._waiting: deque[Opening] = deque()
        self._dialling: asyncio.Task[None] | ClientTunnel | None = None

    @property
    def tunnels(self) -> int:
        return len(self._tunnels)

    def open(self, opening: Opening) -> None:
        for tunnel in self._tunnels:
            if tunnel.has_room:
                tunnel.open(opening)
                return
        if len(self._waiting) >= MOST_WAITING:
            opening.fail(f"{len(self._waiting)} connections wait for {self.key.peer} already")
            return
        self._waiting.append(opening)
        self._dial()

    def retire(self) -> None:
        tunnels, self._tunnels = self._tunnels, []
        for tunnel in tunnels:
            tunnel.retire()
        self._forget_if_empty()

    def _dial(self) -> None:
        if self._dialling is None and self._waiting:
            self._dialling = self.loop.create_task(self._connect())

    async def _connect(self) -> None:
        peer = self.key.peer
        try:
            identity = self._pool.identity()
            if identity is None:
                raise TlsFailed("the waypoint has no certificate")
            session = TlsSession(client_context(identity), server=False)
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, tunnel = await self.loop.create_connection(lambda: ClientTunnel(self, session), peer.ip, peer.port)
        except TimeoutError:
            self._failed(f"cannot connect to {peer}: timed out (is port {peer.port} open, in NetworkPolicies too?)")
        except OSError as error:
            self._failed(f"cannot connect to {peer}: {error.strerror or error}")
        except TlsFailed as error:
            self._failed(str(error))
        else:
            if self._dialling is asyncio.current_task() and not tunnel.closed:
                self._dialling = tunnel

    def _failed(self, reason: str) -> None:
        self._dialling = None
        waiting, self._waiting = self._waiting, deque()
        for opening in waiting:
            opening.fail(reason)
        self._forget_if_empty()

    # --- tunnels say

    def established(self, tunnel: ClientTunnel) -> None:
        self._dialling = None
        self._tunnels.append(tunnel)
        self._serve()

    def stream_released(self, tunnel: ClientTunnel) -> None:
        """There is room on it again, or it is going away."""
        if (tunnel.closed or tunnel.retired) and tunnel in self._tunnels:
            self._tunnels.remove(tunnel)
        if self._waiting:
            self._serve()
        self._forget_if_empty()

    def gone(self, tunnel: ClientTunnel, reason: str) -> None:
        if tunnel in self._tunnels:
            self._tunnels.remove(tunnel)
        elif tunnel.peer is None:
            self._failed(f"no tunnel to {self.key.peer}: {reason}")
        self._forget_if_empty()

    def _serve(self) -> None:
        for tunnel in list(self._tunnels):
            while self._waiting and tunnel.has_room:
                opening = self._waiting.popleft()
                if not opening.cancelled:
                    tunnel.open(opening)
        self._dial()

    def _forget_if_empty(self) -> None:
        if not self._tunnels and not self._waiting and self._dialling is None:
            self._pool.forget(self)


class Pool:
    """All shelves. `identity` gives the certificate of now, None while there is none."""

    def __init__(self, loop: asyncio.AbstractEventLoop, identity: Callable[[], TlsIdentity | None]) -> None:
        self.loop = loop
        self.identity = identity
        self._shelves: dict[Key, Shelf] = {}

    def open(
        self,
        key: Key,
        authority: str,
        headers: Headers,
        opened: Callable[[Channel], None],
        failed: Callable[[str], None],
    ) -> Opening:
        """A channel through a tunnel to `key.peer`, in it CONNECT `authority`. May call back before it returns."""
        opening = Opening(authority, headers, opened, failed)
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = self._shelves[key] = Shelf(self, key)
        shelf.open(opening)
        return opening

    def retire_all(self) -> None:
        """Who comes from now on gets a new tunnel: the certificate has changed, or the process ends."""
        for shelf in list(self._shelves.values()):
            shelf.retire()

    @property
    def tunnels(self) -> int:
        return sum(shelf.tunnels for shelf in self._shelves.values())

    def forget(self, shelf: Shelf) -> None:
        if self._shelves.get(shelf.key) is shelf:
            del self._shelves[shelf.key]
