"""A peer with a valid certificate that sends whatever bytes it likes, and notes how it ends."""

from __future__ import annotations

import select
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.hbone import wire
from tests.hostile.arena import Arena
from tests.worker.hbone_client import tls_socket
from tests.worker.node import PATIENCE

CLOSED = "closed"
OPENING = wire.PREFACE + wire.settings()
Ending = int | str  # the code of a GOAWAY, or CLOSED


@dataclass
class Attacker:
    """One connection. What comes is read in between, so that a GOAWAY is not lost to the reset behind it."""

    sock: ssl.SSLSocket
    came: bytearray = field(default_factory=bytearray)
    closed: bool = False

    @classmethod
    def enter(cls, arena: Arena, opening: bytes = OPENING) -> Attacker:
        attacker = cls(tls_socket(arena.node.a, arena.node.b, arena.identity))
        attacker.send(opening)
        return attacker

    def send(self, data: bytes) -> None:
        if self.closed:
            return
        try:
            self.sock.sendall(data)
        except OSError:
            self._read_rest()

    def pour(self, pieces: Iterable[bytes]) -> None:
        """Until the server has had enough, or there is no more."""
        for piece in pieces:
            if self.closed:
                return
            self.send(piece)
            self.read_what_came()

    def read_what_came(self) -> None:
        while not self.closed and (self.sock.pending() or select.select([self.sock], [], [], 0)[0]):
            self._read()

    def frames(self) -> list[wire.Frame]:
        return list(wire.read(bytes(self.came)))

    def wait_for(self, kind: int, stream: int | None = None, flags: int | None = None) -> wire.Frame:
        """The first frame of a type."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for frame in self.frames():
                if frame.kind == kind and stream in (None, frame.stream) and flags in (None, frame.flags):
                    return frame
            assert not self.closed, f"no frame of type {kind} came before the end"
            assert time.monotonic() < deadline
            self._read()

    def ending(self) -> Ending:
        """Reads until the server ends the connection."""
        self._read_rest()
        goaways = [frame for frame in self.frames() if frame.kind == wire.GOAWAY]
        return int.from_bytes(goaways[-1].payload[4:8], "big") if goaways else CLOSED

    def lives(self) -> bool:
        """Whether a PING is answered."""
        mark = time.monotonic_ns().to_bytes(8, "big")
        self.send(wire.raw(wire.PING, 0, 0, mark))
        deadline = time.monotonic() + PATIENCE
        while not self.closed and time.monotonic() < deadline:
            if any(frame.kind == wire.PING and frame.payload == mark for frame in self.frames()):
                return True
            self._read()
        return False

    def close(self) -> None:
        self.sock.close()

    def _read(self) -> None:
        self.sock.settimeout(PATIENCE)
        try:
            data = self.sock.recv(1 << 16)
        except TimeoutError:
            raise AssertionError("the server neither answers nor closes") from None
        except OSError:
            data = b""
        self.came += data
        self.closed = not data

    def _read_rest(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.closed:
            self._read()
            assert time.monotonic() < deadline, "the server does not end the connection"
