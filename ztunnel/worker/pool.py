"""The tunnels that this worker has opened, shared by all connections that may share them.

Two connections may share a tunnel when the same identity of the same pod dials the same peer and expects the same
identities of it. Of one key at most one dial is under way; all callers wait for the same attempt and fail with it, so a
dead peer costs each caller one time-out at most, and one more if many keys dial it (dials.py).
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from mesh.identity.peers import check_server
from mesh.identity.tls import TlsSession
from mesh.model.address import SocketAddress
from mesh.model.identity import SpiffeId
from ztunnel.plan.plan import Flag
from ztunnel.worker.context import Context
from ztunnel.worker.dials import Dials, Turn
from ztunnel.worker.occupants import Occupant
from ztunnel.worker.sockets import Dial, Namespace
from ztunnel.worker.tunnel import Tunnel

FRESH = 0.1  # seconds since the peer was heard: a tunnel that stood idle may have died unnoticed
NETWORK_POLICY_HINT = " (is port 15008 open, in NetworkPolicies too?)"


@dataclass(frozen=True, slots=True)
class Key:
    source: SpiffeId
    expected: frozenset[SpiffeId]
    peer: SocketAddress
    pod: int  # the netns cookie: tunnels leave from the pod's own address


class Caller(Protocol):
    """Who needs a tunnel; one of the two is called, once, maybe before `Pool.request` returns."""

    def tunnel_ready(self, tunnel: ClientTunnel) -> None: ...

    def tunnel_failed(self, flag: Flag, reason: str) -> None: ...

    @property
    def gave_up(self) -> bool:
        """Whether it is gone and wants neither."""


class ClientTunnel(Tunnel):
    """A tunnel that we opened."""

    is_client = True

    def __init__(self, context: Context, sock: socket.socket, key: Key, owner: Shelf) -> None:
        session = context.certificates.session(key.source, server=False)
        super().__init__(context, sock, session)
        self._key = key
        self._owner = owner
        self._most = context.settings.pool_streams
        self._serves = False  # the peer has answered a CONNECT with 200

    @property
    def has_room(self) -> bool:
        connection = self._connection
        if connection is None or self.closed or self.retired or len(self.streams) >= self._most:
            return False
        return connection.available_streams > 0  # none when it is going away

    @property
    def takes_early(self) -> bool:
        """Whether payload may go with CONNECT: only where all speaks for an answer with 200, since a connection whose
        payload is on its way cannot move to another tunnel any more."""
        return self._serves and self.loop.now - self.heard < FRESH

    def accepted(self) -> None:
        self._serves = True

    def connect(self, authority: str, headers: tuple[tuple[str, str], ...], occupant: Occupant) -> int:
        """Opens a stream. `has_room` must hold."""
        assert self._connection is not None
        stream = self._connection.open(authority, headers)
        self.streams[stream] = occupant
        self._mark()
        return stream

    def _check_peer(self, session: TlsSession) -> SpiffeId:
        return check_server(session.peer_identities(), self._key.expected)

    def _established(self) -> None:
        self._owner.established(self)

    def _gone(self, flag: Flag, reason: str, established: bool) -> None:
        self._owner.gone(self, flag, reason, established)

    def _stream_released(self) -> None:
        self._owner.stream_released(self)


class Shelf:
    """All tunnels of one key and the callers that wait for one. Forgotten when it is empty."""

    def __init__(
        self, context: Context, key: Key, namespace: Namespace, dials: Dials, emptied: Callable[[Shelf], None]
    ) -> None:
        self._context = context
        self.key = key
        self._namespace = namespace
        self._emptied = emptied
        self._tunnels: list[ClientTunnel] = []
        self._waiting: deque[Caller] = deque()
        self._dialling: Turn | Dial | ClientTunnel | None = None
        self._turn = Turn(dials, key.peer, self._begin, self._too_late)

    @property
    def tunnels(self) -> int:
        return len(self._tunnels)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def streams(self) -> int:
        return sum(len(tunnel.streams) for tunnel in self._tunnels)

    @property
    def held(self) -> int:
        return sum(tunnel.held() for tunnel in self._tunnels)

    def request(self, caller: Caller) -> None:
        tunnel = self._least_loaded()
        if tunnel is not None:
            caller.tunnel_ready(tunnel)
            return
        if len(self._waiting) >= self._context.settings.pool_waiting:
            caller.tunnel_failed(Flag.CONNECT, f"{len(self._waiting)} connections wait for {self.key.peer} already")
            return
        self._waiting.append(caller)
        self._dial()

    def retire(self) -> None:
        """Whoever comes from now on gets a new tunnel."""
        tunnels, self._tunnels = self._tunnels, []
        for tunnel in tunnels:
            tunnel.retire()
        self._forget_if_empty()

    def _dial(self) -> None:
        if self._dialling is None and self._waiting:
            self._dialling = self._turn
            self._turn.enter()

    def _begin(self) -> None:
        if all(caller.gave_up for caller in self._waiting):
            self._failed(Flag.CONNECT, "")
            return
        dial = Dial(self._context.loop, self.key.peer, self._connected, self._not_connected)
        self._dialling = dial
        dial.start(self._namespace, self._context.settings.connect_timeout)

    def _too_late(self, reason: str) -> None:
        self._failed(Flag.CONNECT, reason)

    def _connected(self, sock: socket.socket) -> None:
        if not self._context.certificates.held(self.key.source):
            self._context.loop.discard(sock)
            self._failed(Flag.IDENTITY_ERROR, self._context.certificates.why_missing(self.key.source))
            return
        tunnel = ClientTunnel(self._context, sock, self.key, self)
        self._dialling = tunnel
        tunnel.begin()

    def _not_connected(self, code: int, reason: str) -> None:
        if code == errno.ETIMEDOUT:
            self._failed(Flag.NETWORK_POLICY, reason + NETWORK_POLICY_HINT)
        else:
            self._failed(Flag.CONNECT, reason)

    def _failed(self, flag: Flag, reason: str) -> None:
        self._dialled()
        waiting, self._waiting = self._waiting, deque()
        for caller in waiting:
            if not caller.gave_up:
                caller.tunnel_failed(flag, reason)
        self._forget_if_empty()

    def _dialled(self) -> None:
        self._dialling = None
        self._turn.leave()

    # --- tunnels say

    def established(self, tunnel: ClientTunnel) -> None:
        self._dialled()
        self._tunnels.append(tunnel)
        self._serve()

    def stream_released(self, tunnel: ClientTunnel) -> None:
        """There is room on it again, or it is going away."""
        if not tunnel.usable and tunnel in self._tunnels:
            self._tunnels.remove(tunnel)
        if self._waiting:
            self._serve()
        self._forget_if_empty()

    def gone(self, tunnel: ClientTunnel, flag: Flag, reason: str, established: bool) -> None:
        if tunnel in self._tunnels:
            self._tunnels.remove(tunnel)
        if self._dialling is tunnel:
            self._failed(flag, f"no tunnel to {self.key.peer}: {reason}")
        self._forget_if_empty()

    def _serve(self) -> None:
        """Hands out what room there is; dials again if callers are left."""
        while self._waiting and (tunnel := self._least_loaded()) is not None:
            caller = self._waiting.popleft()
            if not caller.gave_up:
                caller.tunnel_ready(tunnel)
        self._dial()

    def _least_loaded(self) -> ClientTunnel | None:
        """Of the tunnels that take another stream."""
        found = None
        for tunnel in self._tunnels:
            if tunnel.has_room and (found is None or len(tunnel.streams) < len(found.streams)):
                found = tunnel
        return found

    def _forget_if_empty(self) -> None:
        if not self._tunnels and not self._waiting and self._dialling is None:
            self._emptied(self)


class Pool:
    """All shelves."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._shelves: dict[Key, Shelf] = {}
        self._dials = Dials(context.loop, context.settings.peer_dials, context.settings.connect_timeout)

    def request(self, key: Key, namespace: Namespace, caller: Caller) -> None:
        shelf = self._shelves.get(key)
        if shelf is None:
            shelf = Shelf(self._context, key, namespace, self._dials, self._forget)
            self._shelves[key] = shelf
        shelf.request(caller)

    def certificate_changed(self, identity: SpiffeId) -> None:
        """Tunnels that stand go on with the certificate that they have; new connections use the new one."""
        self._retire(lambda key: key.source == identity)

    def pod_left(self, cookie: int) -> None:
        self._retire(lambda key: key.pod == cookie)

    def retire_all(self) -> None:
        self._retire(lambda key: True)

    def counters(self) -> dict[str, int]:
        return {
            "pool_keys": len(self._shelves),
            "pool_tunnels": sum(shelf.tunnels for shelf in self._shelves.values()),
            "pool_streams": sum(shelf.streams for shelf in self._shelves.values()),
            "pool_held_bytes": sum(shelf.held for shelf in self._shelves.values()),
            "pool_dials": self._dials.under_way,
            "pool_dials_waiting": self._dials.waiting,
            "pool_waiting": sum(shelf.waiting for shelf in self._shelves.values()),
        }

    def _retire(self, concerns: Callable[[Key], bool]) -> None:
        for key, shelf in list(self._shelves.items()):
            if concerns(key):
                shelf.retire()

    def _forget(self, shelf: Shelf) -> None:
        """An old tunnel of a shelf that was forgotten may end when the key has another shelf already."""
        if self._shelves.get(shelf.key) is shelf:
            del self._shelves[shelf.key]
