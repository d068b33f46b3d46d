"""Who sits at our end of each stream of a tunnel: what HTTP/2 says of a stream is handed to its occupant."""

from __future__ import annotations

from typing import Protocol


class Occupant(Protocol):
    """At first somebody who waits for an answer, later the pump."""

    def answered(self, status: int, headers: dict[str, str]) -> None: ...
    def push(self, pieces: list[memoryview]) -> None: ...
    def ended(self) -> None: ...
    def peer_reset(self, code: int) -> None: ...
    def writable(self) -> None: ...
    def held(self) -> int:
        """Payload bytes that came through the tunnel and that nobody has taken yet."""

    def lost(self, reason: str) -> None:
        """The tunnel is gone."""


class Occupants:
    """By stream; the half of `mesh.hbone.Handler` that is about streams. Who has left hears no more."""

    def __init__(self) -> None:
        self.streams: dict[int, Occupant] = {}

    def held(self) -> int:
        return sum(occupant.held() for occupant in self.streams.values())

    def response_received(self, stream: int, status: int, headers: dict[str, str], ended: bool) -> None:
        occupant = self.streams.get(stream)
        if occupant is not None:
            occupant.answered(status, headers)
            if ended:
                self.stream_ended(stream)

    def data_received(self, stream: int, pieces: list[memoryview]) -> None:
        occupant = self.streams.get(stream)
        if occupant is not None:
            occupant.push(pieces)

    def stream_ended(self, stream: int) -> None:
        occupant = self.streams.get(stream)
        if occupant is not None:
            occupant.ended()

    def stream_reset(self, stream: int, code: int) -> None:
        occupant = self.streams.get(stream)
        if occupant is not None:
            occupant.peer_reset(code)

    def stream_writable(self, stream: int) -> None:
        occupant = self.streams.get(stream)
        if occupant is not None:
            occupant.writable()
