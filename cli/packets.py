"""Reading packets where the nodes meet: the proof that is independent of everything that Ambit says about itself."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from mesh.model.ports import HBONE

ETH_P_ALL = 3
ETHERNET_HEAD = 14
IPV4, IPV6, TCP = 0x0800, 0x86DD, 6
# A captured frame may be a whole GSO packet: the kernel hands over up to 64 KiB at once.
LARGEST = 1 << 17
TLS_APPLICATION_DATA = b"\x17\x03\x03"


@dataclass
class Seen:
    """What went over the underlay while it was watched."""

    packets: int = 0
    hbone_packets: int = 0
    tls_records: int = 0
    frames: list[bytes] = field(default_factory=list)

    def in_clear(self, secret: bytes) -> bool:
        """Whether `secret` can be read in some packet. Choose it short: a packet boundary must not hide it."""
        return any(secret in frame for frame in self.frames)


class PacketWatch:
    """Records all packets at the underlay from `with` to its end. `within` runs a function in the underlay's netns."""

    def __init__(self, within: Callable[[Callable[[], socket.socket]], socket.socket], keep: int = 64 << 20) -> None:
        self.seen = Seen()
        self._keep = keep  # bytes: bounds the memory of a long watch
        self._socket = within(open_sniffer)
        self._stop_reading, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Seen:
        self._thread.start()
        return self.seen

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._stop, b"x")
        self._thread.join()
        self._socket.close()
        os.close(self._stop)
        os.close(self._stop_reading)

    def _read(self) -> None:
        buffer = bytearray(LARGEST)
        sniffer = self._socket.fileno()
        while True:
            ready, _, _ = select.select([sniffer, self._stop_reading], [], [])
            if sniffer in ready:
                self._note(bytes(buffer[: self._socket.recv_into(buffer)]))
            elif ready:  # told to stop, and nothing is left to read
                return

    def _note(self, frame: bytes) -> None:
        ports, payload = _tcp(frame)
        if not payload:
            return
        self.seen.packets += 1
        if HBONE in ports:
            self.seen.hbone_packets += 1
            self.seen.tls_records += payload.startswith(TLS_APPLICATION_DATA)
        self._keep -= len(payload)
        if self._keep > 0:
            self.seen.frames.append(payload)


def open_sniffer() -> socket.socket:
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
    return sniffer


def _tcp(frame: bytes) -> tuple[tuple[int, int], bytes]:
    """Ports and payload of a TCP segment over IPv4 or IPv6 without extension headers; no payload for anything else."""
    kind, ip = int.from_bytes(frame[12:14], "big"), frame[ETHERNET_HEAD:]
    if kind == IPV4 and len(ip) >= 20 and ip[9] == TCP:
        segment = ip[(ip[0] & 15) * 4 : int.from_bytes(ip[2:4], "big") or None]
    elif kind == IPV6 and len(ip) >= 40 and ip[6] == TCP:
        segment = ip[40:]
    else:
        return (0, 0), b""
    if len(segment) < 20:
        return (0, 0), b""
    ports = int.from_bytes(segment[:2], "big"), int.from_bytes(segment[2:4], "big")
    return ports, segment[(segment[12] >> 4) * 4 :]
