"""Dials of tunnels to one peer take turns: a peer that comes back is not met by all pods of this node at once.

A pool's keys are per pod and identity, so that a hundred pods that lose the same peer would dial it in the same moment.
"""

from __future__ import annotations

from collections.abc import Callable

from mesh.model.address import SocketAddress
from ztunnel.worker.loop import Loop, Timer


class Turn:
    """One dial: waits until it may begin, and holds its place until `leave`, which must be called in any case.

    `begin` is called once, or else `too_late`, maybe before `enter` returns.
    """

    __slots__ = ("_dials", "begin", "peer", "timer", "too_late")

    def __init__(
        self, dials: Dials, peer: SocketAddress, begin: Callable[[], None], too_late: Callable[[str], None]
    ) -> None:
        self._dials = dials
        self.peer = peer
        self.begin = begin
        self.too_late = too_late
        self.timer: Timer | None = None  # while it waits

    def enter(self) -> None:
        self._dials.enter(self)

    def leave(self) -> None:
        self._dials.leave(self)


class Dials:
    """At most `most` under way to each peer; who has waited `patience` seconds for its turn is told that it is too
    late. What waits is bounded by the connections that wait for it."""

    def __init__(self, loop: Loop, most: int, patience: float) -> None:
        self._loop = loop
        self._most = most
        self._patience = patience
        self._under_way: dict[SocketAddress, set[Turn]] = {}
        self._waiting: dict[SocketAddress, dict[Turn, None]] = {}  # in the order of their coming

    @property
    def under_way(self) -> int:
        return sum(len(turns) for turns in self._under_way.values())

    @property
    def waiting(self) -> int:
        return sum(len(turns) for turns in self._waiting.values())

    def enter(self, turn: Turn) -> None:
        if len(self._under_way.get(turn.peer, ())) < self._most:
            self._begin(turn)
            return
        self._waiting.setdefault(turn.peer, {})[turn] = None
        turn.timer = self._loop.later(self._patience, lambda: self._give_up(turn))

    def leave(self, turn: Turn) -> None:
        """Again is no error."""
        self._stop_waiting(turn)
        under_way = self._under_way.get(turn.peer)
        if under_way is None or turn not in under_way:
            return
        under_way.remove(turn)
        if not under_way:
            del self._under_way[turn.peer]
        if turn.peer in self._waiting:
            self._loop.soon(lambda: self._serve(turn.peer))  # not from here: a dial may fail at once, and leave

    def _begin(self, turn: Turn) -> None:
        self._under_way.setdefault(turn.peer, set()).add(turn)
        turn.begin()

    def _serve(self, peer: SocketAddress) -> None:
        while peer in self._waiting and len(self._under_way.get(peer, ())) < self._most:
            turn = next(iter(self._waiting[peer]))
            self._stop_waiting(turn)
            self._begin(turn)

    def _stop_waiting(self, turn: Turn) -> None:
        if turn.timer is None:
            return
        turn.timer.cancel()
        turn.timer = None
        waiting = self._waiting[turn.peer]
        del waiting[turn]
        if not waiting:
            del self._waiting[turn.peer]

    def _give_up(self, turn: Turn) -> None:
        self._stop_waiting(turn)
        turn.too_late(f"{self._most} tunnels to {turn.peer} were being dialled for {self._patience:g} s")
