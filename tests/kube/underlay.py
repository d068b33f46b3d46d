"""Packets where the nodes meet, searched for marked lines of programs: the proof that is independent of the mesh."""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from cli.packets import LARGEST, open_sniffer

SOL_PACKET, PACKET_STATISTICS = 263, 6  # linux/if_packet.h; struct tpacket_stats: packets, drops


@dataclass
class Clear:
    """What was found: every match, in the order in which it passed, and how much there was to search."""

    found: list[tuple[bytes, ...]] = field(default_factory=list)
    frames: int = 0
    bytes: int = 0
    missed: int = 0  # frames that the kernel could not keep for us; a test that sees any has seen nothing


class Sniffer:
    """Searches every frame for a pattern, from `with` to its end; packets that passed before the end are searched too.

    A frame is seen at each port of the underlay's bridge, so matches come more than once. `within` runs a function in
    the underlay's network namespace.
    """

    def __init__(self, pattern: bytes, within: Callable[[Callable[[], socket.socket]], socket.socket]) -> None:
        self.clear = Clear()
        self._pattern = re.compile(pattern)
        self._socket = within(open_sniffer)
        self._stop_reading, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Clear:
        self._thread.start()
        return self.clear

    def __exit__(self, *_: object) -> None:
        os.write(self._stop, b"x")
        self._thread.join()
        counters = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.clear.missed = struct.unpack("=II", counters)[1]
        self._socket.close()
        os.close(self._stop)
        os.close(self._stop_reading)

    def _read(self) -> None:
        buffer = bytearray(LARGEST)
        sniffer, poll = self._socket.fileno(), select.poll()
        for each in (sniffer, self._stop_reading):
            poll.register(each, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if sniffer in ready:
                self._search(memoryview(buffer)[: self._socket.recv_into(buffer)])
            elif ready:  # told to stop, and nothing is left to read
                return

    def _search(self, frame: memoryview) -> None:
        self.clear.frames += 1
        self.clear.bytes += len(frame)
        for match in self._pattern.finditer(frame):
            self.clear.found.append((match[0], *match.groups()))
