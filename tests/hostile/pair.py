"""Two real workers, and connections from an app in pod a to an app in pod b of which the test holds both ends."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from contextlib import suppress

from tests.hostile.arena import descriptors
from tests.worker.node import PATIENCE, Node, read_exactly, serving

PORT = 8090
HELD = (
    "connections",
    "tunnels",
    "pool_keys",
    "pool_tunnels",
    "pool_streams",
    "pool_held_bytes",
    "pool_waiting",
    "inbound_tunnels",
    "inbound_streams",
    "inbound_held_bytes",
)


class Pair:
    """`client` serves pod a, `server` pod b."""

    def __init__(self, node: Node, **environment: str) -> None:
        self.node = node
        self.client = node.worker(node.a, **environment)
        self.server = node.worker(node.b, **environment)
        self._numbers = itertools.count(1)
        self._accepted: dict[int, socket.socket] = {}
        self._came = threading.Condition()
        serving(node.b.listen(PORT), self._accept)

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a new connection, blocking."""
        number = next(self._numbers)
        client = self.node.a.dial(self.node.b.address(PORT))
        client.sendall(number.to_bytes(8, "big"))
        with self._came:
            assert self._came.wait_for(lambda: number in self._accepted, PATIENCE), "the connection does not arrive"
            return client, self._accepted.pop(number)

    def _accept(self, sock: socket.socket) -> None:
        with suppress(EOFError):  # tests open some that say nothing
            self._note(int.from_bytes(read_exactly(sock, 8), "big"), sock)

    def _note(self, number: int, sock: socket.socket) -> None:
        with self._came:
            self._accepted[number] = sock.dup()
            self._accepted[number].settimeout(PATIENCE)
            self._came.notify_all()

    def held(self) -> dict[str, int]:
        """By both workers together."""
        counters = [worker.describe().counters for worker in (self.client, self.server)]
        return {name: sum(each[name] for each in counters) for name in HELD}

    def open_files(self) -> list[tuple[int, int]]:
        return [descriptors(worker.process.pid) for worker in (self.client, self.server)]

    def wait_until_idle(self) -> None:
        """No connection is left; pooled tunnels stay."""
        deadline = time.monotonic() + PATIENCE
        while (held := self.held())["connections"] or held["pool_streams"] or held["inbound_streams"]:
            assert time.monotonic() < deadline, held
            time.sleep(0.02)

    def close(self) -> None:
        self.node.clear()
