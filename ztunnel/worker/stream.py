"""The pump between an app's socket and one stream of a tunnel.

App to tunnel: received straight into the tunnel's staging buffer, as far as credit and room go. Tunnel to app: sent
straight out of the tunnel's plaintext; what the app does not take waits here, bounded by the stream's window, because
credit goes back only for what the app has taken. FIN is END_STREAM and RST is RST_STREAM, in both directions.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh.hbone import ErrorCode
from ztunnel.plan.unanswered import Unanswered
from ztunnel.worker.loop import BROKEN, HANGUP, IN, OUT
from ztunnel.worker.sockets import reset, say

if TYPE_CHECKING:
    from ztunnel.worker.tunnel import Tunnel

Rescue = Callable[[socket.socket, bytes | None, str], None]
MAX_PIECES = 512  # of one writev; IOV_MAX is 1024
MOST_EARLY = 16 << 10  # bytes of the app's that may go with CONNECT: a request, not a transfer

_skipped = memoryview(bytearray(MOST_EARLY))


class Stream:
    """Lives from the moment when both ends stand until both directions have ended, or one end breaks.

    `finished` is called once, with "" or with why it broke.
    """

    __slots__ = (
        "_backlog",
        "_finished",
        "_from_app",
        "_hangup",
        "_id",
        "_in_ended",
        "_out_ended",
        "_queued",
        "_rescue",
        "_sock",
        "_to_app",
        "_tunnel",
        "_unanswered",
        "_waiting",
    )

    def __init__(self, tunnel: Tunnel, stream: int, sock: socket.socket, finished: Callable[[str], None]) -> None:
        self._tunnel = tunnel
        self._id = stream
        self._sock: socket.socket | None = sock  # None once finished
        self._finished = finished
        self._backlog: bytearray | None = None  # not None: the app's socket is full
        self._in_ended = False  # the tunnel has sent END_STREAM
        self._out_ended = False  # the app has sent FIN
        self._hangup = False  # the app's FIN or RST is somewhere behind its data: read until it comes
        self._waiting = False  # for room or credit
        self._queued = False
        self._from_app = 0
        self._to_app = 0
        self._unanswered: Unanswered | None = None
        self._rescue: Rescue | None = None

    def follow(self, unanswered: Unanswered, rescue: Rescue, asked: bytes) -> None:
        """The other end is a waypoint. If it goes, `rescue` takes the app's socket, and what to ask another one: b"" is
        nothing at all, None that the app has to be told. `asked` is what the one before was asked."""
        self._unanswered, self._rescue = unanswered, rescue
        if asked:
            room = self._tunnel.reserve(self._id)
            if room is None or len(room) < len(asked):
                self._abort("there is no room to repeat the request")
                return
            room[: len(asked)] = asked
            self._tunnel.commit(self._id, len(asked))
            unanswered.said(asked)

    def start(self, told: int, early: bytes | bytearray = b"", ended: bool = False, said: int = 0) -> None:
        """`told`: events of the app's socket before now, whose edges are not repeated. `early` and `ended` are what
        came through the tunnel before that socket was there; `said` bytes of the app's have been sent and are still in
        its socket."""
        if self._sock is None:
            return
        self._tunnel.loop.hand_over(self._sock.fileno(), self.event)
        self._hangup = bool(told & HANGUP)
        if said and not self._skip(said):
            return
        if early:
            self.push([memoryview(early)])
        if ended:
            self.ended()
        if told & (IN | HANGUP) and self._sock is not None:
            self._pull()

    def _skip(self, size: int) -> bool:
        """Takes from the app's socket what has been sent already."""
        assert self._sock is not None
        try:
            self._sock.recv_into(_skipped, size)
        except OSError as error:
            self._abort(f"the app's connection broke: {say(error.errno or 0)}")
            return False
        self._from_app = size
        return True

    def counts(self) -> tuple[int, int]:
        """Payload bytes from client to server, and back."""
        if self._tunnel.is_client:
            return self._from_app, self._to_app
        return self._to_app, self._from_app

    def held(self) -> int:
        return len(self._backlog or b"")

    # --- the app's socket

    def event(self, event: int) -> None:
        if event & HANGUP:
            self._hangup = True
        if event & OUT and self._backlog is not None:
            self._drain()
        if self._sock is None:
            return
        if self._out_ended:
            if event & BROKEN:  # half closed before, now reset
                self._abort("the app reset the connection")
        elif self._waiting:
            if event & BROKEN:
                self._abort("the app reset the connection")
        elif event & (IN | HANGUP):
            self._pull()

    def _again(self) -> None:
        self._queued = False
        if self._sock is not None and not self._out_ended:
            self._pull()

    def _pull(self) -> None:
        sock = self._sock
        assert sock is not None
        tunnel = self._tunnel
        room = tunnel.reserve(self._id)
        if room is None:
            self._waiting = True
            tunnel.wait(self._id, self)
            return
        self._waiting = False
        try:
            size = sock.recv_into(room)
        except BlockingIOError:
            self._hangup = False  # nothing is hidden behind the data; what comes makes a new edge
            return
        except OSError as error:
            self._abort(f"the app's connection broke: {say(error.errno or 0)}")
            return
        if not size:
            self._app_ended()
            return
        self._from_app += size
        if self._unanswered is not None:
            self._unanswered.said(room[:size])
        tunnel.commit(self._id, size)
        if (self._hangup or size == len(room)) and not self._queued:
            self._queued = True
            tunnel.loop.soon(self._again)

    def _app_ended(self) -> None:
        self._out_ended = True
        self._tunnel.end(self._id)
        self._close_if_done()

    def _drain(self) -> None:
        assert self._sock is not None
        assert self._backlog is not None
        try:
            sent = self._sock.send(self._backlog)
        except BlockingIOError:
            return
        except OSError as error:
            self._abort(f"the app's connection broke: {say(error.errno or 0)}")
            return
        del self._backlog[:sent]
        self._taken(sent)
        if self._backlog:
            return
        self._backlog = None
        if self._in_ended:
            self._shut_down()

    # --- the tunnel (occupants.Occupant)

    def answered(self, status: int, headers: dict[str, str]) -> None:
        """Only once, and before there was a pump."""

    def push(self, pieces: list[memoryview]) -> None:
        """Payload from the peer; the views are valid during this call only."""
        if self._sock is None:
            return
        if self._unanswered is not None:
            self._hear(pieces)
        if self._backlog is not None:
            for piece in pieces:
                self._backlog += piece
            return
        try:
            if len(pieces) == 1:
                sent = self._sock.send(pieces[0])
                if sent == len(pieces[0]):
                    self._to_app += sent
                    self._tunnel.acknowledge(self._id, sent)
                    return
            else:
                sent = os.writev(self._sock.fileno(), pieces[:MAX_PIECES])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._abort(f"the app's connection broke: {say(error.errno or 0)}")
            return
        if sent:
            self._taken(sent)
        self._keep(pieces, sent)

    def _hear(self, pieces: list[memoryview]) -> None:
        assert self._unanswered is not None
        self._unanswered.heard(pieces)
        if self._unanswered.doubtful:
            self._unanswered = self._rescue = None

    def _keep(self, pieces: list[memoryview], sent: int) -> None:
        """Copies what is left of `pieces` after the first `sent` bytes."""
        for piece in pieces:
            if sent >= len(piece):
                sent -= len(piece)
                continue
            if self._backlog is None:
                self._backlog = bytearray()
            self._backlog += piece[sent:]
            sent = 0
        if self._backlog is not None and len(pieces) > MAX_PIECES:
            self._drain()  # what writev was not offered has no edge to wait for

    def ended(self) -> None:
        """END_STREAM: the peer sends no more."""
        if self._unanswered is not None and self._unanswered.overlooked:
            self._tunnel.reset(self._id, ErrorCode.CANCEL)
            self.lost("the waypoint has ended the connection")
            return
        self._in_ended = True
        if self._backlog is None:
            self._shut_down()

    def peer_reset(self, code: int) -> None:
        if self._in_ended and code == ErrorCode.NO_ERROR:
            # After a complete response: "stop sending" (RFC 9113 section 8.1). What the app still has to get, it gets.
            self._out_ended = True
            self._close_if_done()
        else:
            self._break(f"the peer reset the stream (code {code})")

    def lost(self, reason: str) -> None:
        """The tunnel has gone."""
        unanswered, rescue, sock = self._unanswered, self._rescue, self._sock
        if unanswered is None or rescue is None or sock is None or self._backlog is not None or self._out_ended:
            self._break(reason)
        elif unanswered.at_rest or unanswered.answerable:
            self._leave(reason)
            rescue(sock, b"" if unanswered.at_rest else unanswered.repeatable() or None, reason)
        else:
            self._break(reason)

    def writable(self) -> None:
        """There may be room or credit again."""
        if self._waiting and not self._queued and self._sock is not None:
            self._queued = True
            self._tunnel.loop.first(self._again)

    def crash(self, reason: str) -> None:
        self._abort(reason)

    def cut(self, reason: str) -> None:
        """Ends it in both directions, for a reason of ours."""
        self._abort(reason)

    # --- ends

    def _taken(self, size: int) -> None:
        self._to_app += size
        self._tunnel.acknowledge(self._id, size)

    def _shut_down(self) -> None:
        """FIN to the app: all that the peer sent has been written."""
        if self._sock is None:
            return
        if not self._out_ended:
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._abort(f"the app's connection broke: {say(error.errno or 0)}")
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._sock is not None and self._in_ended and self._out_ended and self._backlog is None:
            sock = self._sock
            self._leave("")
            self._tunnel.loop.discard(sock)

    def _abort(self, reason: str) -> None:
        """The app's side broke: tell the peer (RFC 9113 section 8.5)."""
        if self._sock is not None:
            self._tunnel.reset(self._id, ErrorCode.CONNECT_ERROR)
            self._break(reason)

    def _break(self, reason: str) -> None:
        if self._sock is not None:
            sock = self._sock
            self._leave(reason)
            reset(self._tunnel.loop, sock)

    def _leave(self, reason: str) -> None:
        self._sock = None
        self._unanswered = self._rescue = None  # which would keep alive what led here
        self._tunnel.release(self._id)
        self._finished(reason)
