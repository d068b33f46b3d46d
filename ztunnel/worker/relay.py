"""Plain TCP to plain TCP, for what is passed through and for captured plaintext: FIN stays FIN, RST stays RST.

Each direction holds at most one chunk, and only while its receiver is slower than its sender.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from ztunnel.worker.loop import BROKEN, HANGUP, IN, OUT, Loop
from ztunnel.worker.sockets import reset, say

CHUNK = 64 << 10  # also the most that is held for somebody who does not read

# A chunk is sent or copied before anything else runs, so one buffer serves all relays of the process.
_chunk = memoryview(bytearray(CHUNK))


class Relay:
    """Two sockets that stand. `finished` is called once, with "" or with why it broke."""

    __slots__ = ("_client", "_finished", "_loop", "_server")

    def __init__(
        self, loop: Loop, client: socket.socket, server: socket.socket, finished: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._finished = finished
        self._client = _Half(self, client, "client")
        self._server = _Half(self, server, "server")
        self._client.other, self._server.other = self._server, self._client

    def start(self) -> None:
        """Both sockets are watched already; edges that came before are looked for here."""
        for half in (self._client, self._server):
            self._loop.hand_over(half.sock.fileno(), half.event)
        for half in (self._client, self._server):
            half.hangup = True
            half.pull()

    def counts(self) -> tuple[int, int]:
        """Bytes from client to server, and back."""
        return self._client.taken, self._server.taken

    def held(self) -> int:
        return self._client.held() + self._server.held()

    def cut(self, reason: str) -> None:
        self.abort(reason)

    def abort(self, reason: str) -> None:
        if self._client.finished:
            return
        self._leave()
        reset(self._loop, self._client.sock)
        reset(self._loop, self._server.sock)
        self._finished(reason)

    def close_if_done(self) -> None:
        if self._client.shut and self._server.shut and not self._client.finished:
            self._leave()
            self._loop.discard(self._client.sock)
            self._loop.discard(self._server.sock)
            self._finished("")

    def soon(self, callback: Callable[[], None]) -> None:
        self._loop.soon(callback)

    def _leave(self) -> None:
        self._client.finished = self._server.finished = True


class _Half:
    """One socket: what it says goes to the other one."""

    __slots__ = ("_backlog", "_name", "_queued", "_relay", "finished", "hangup", "other", "shut", "sock", "taken")

    other: _Half

    def __init__(self, relay: Relay, sock: socket.socket, name: str) -> None:
        self._relay = relay
        self._name = name
        self._backlog = memoryview(b"")  # said by this one, not yet taken by the other
        self._queued = False
        self.sock = sock
        self.taken = 0
        self.hangup = False
        self.shut = False  # its FIN has been passed on
        self.finished = False

    def event(self, event: int) -> None:
        if event & HANGUP:
            self.hangup = True
        if event & OUT and not self.finished:
            self.other.drain()
        if self.finished:
            return
        if event & BROKEN and (self.shut or self._backlog):
            self._relay.abort(f"the {self._name} reset the connection")
        elif event & (IN | HANGUP):
            self.pull()

    def pull(self) -> None:
        if self.finished or self.shut or self._backlog:
            return
        try:
            size = self.sock.recv_into(_chunk)
        except BlockingIOError:
            self.hangup = False  # nothing is hidden behind the data; what comes makes a new edge
            return
        except OSError as error:
            self._relay.abort(f"the {self._name}'s connection broke: {say(error.errno or 0)}")
            return
        if not size:
            self._pass_end_on()
            return
        sent = self._send(_chunk[:size])
        if sent < size and not self.finished:
            self._backlog = memoryview(bytes(_chunk[sent:size]))
        elif size == CHUNK or self.hangup:
            self._pull_soon()

    def held(self) -> int:
        return len(self._backlog)

    def drain(self) -> None:
        """The other socket takes more."""
        if self._backlog:
            sent = self._send(self._backlog)
            self._backlog = self._backlog[sent:]
            if not self._backlog:
                self._pull_soon()

    def crash(self, reason: str) -> None:
        self._relay.abort(reason)

    def _send(self, view: memoryview) -> int:
        try:
            sent = self.other.sock.send(view)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._relay.abort(f"the {self.other._name}'s connection broke: {say(error.errno or 0)}")
            return 0
        self.taken += sent
        return sent

    def _pull_soon(self) -> None:
        if not self._queued:
            self._queued = True
            self._relay.soon(self._again)

    def _again(self) -> None:
        self._queued = False
        self.pull()

    def _pass_end_on(self) -> None:
        self.shut = True
        try:
            self.other.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._relay.abort(f"the {self.other._name}'s connection broke: {say(error.errno or 0)}")
            return
        self._relay.close_if_done()
