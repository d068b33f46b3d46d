"""What one end of a connection grants to the other, and what it puts up with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .frames import DEFAULT_WINDOW, LARGEST_MAX_FRAME, SMALLEST_MAX_FRAME

KIB = 1 << 10
MIB = 1 << 20


class Role(Enum):
    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class FloodLimits:
    """How many frames that cost more than they bring a peer may send in one period, which `Connection.ping` starts.

    Far above what any honest peer does in the ten seconds between keepalive pings; far below what hurts.
    """

    resets: int = 1000  # requests cancelled before their response, or made to fail (CVE-2023-44487, CVE-2025-8671),
    # besides one for each request that was granted: a client whose apps give up often also has some that do not
    settings: int = 100
    pings: int = 500
    empty_data: int = 1000
    priorities: int = 1000
    window_updates: int = 2000  # besides those that streams and sent bytes justify
    ignored: int = 5000  # unknown types, and what still comes for streams that are gone
    fragments: int = 64  # HEADERS and CONTINUATION frames of one header block (CVE-2024-27316)


@dataclass(frozen=True, slots=True)
class Limits:
    """Windows and sizes in bytes. The defaults are those of Istio's ztunnel (src/config.rs, src/proxy/h2/)."""

    stream_window: int = 4 * MIB  # what a stream's window grows to when its reader keeps up
    initial_window: int = 64 * KIB  # what it starts with: the most that somebody who never reads makes us hold
    connection_window: int = 16 * MIB  # also the sum by which all windows of a connection together may grow
    max_frame: int = 1 * MIB
    max_concurrent_streams: int = 200  # of the peer's; a server's limit
    max_header_list: int = 64 * KIB
    staging: int = 256 * KIB  # DATA that waits to be written out
    control_room: int = 64 * KIB  # besides it, for all other frames: a peer that asks without reading ends here
    receive_room: int = 256 * KIB
    floods: FloodLimits = FloodLimits()

    def __post_init__(self) -> None:
        """Raises ValueError: HTTP/2 starts with these sizes, and a peer may use them before it hears of others."""
        if min(self.initial_window, self.connection_window) < DEFAULT_WINDOW:
            raise ValueError(f"a flow-control window below {DEFAULT_WINDOW} bytes")
        if not SMALLEST_MAX_FRAME <= self.max_frame <= LARGEST_MAX_FRAME:
            raise ValueError(f"a frame size of {self.max_frame} bytes")


CLIENT_LIMITS = Limits(max_header_list=16 * KIB)
SERVER_LIMITS = Limits()
