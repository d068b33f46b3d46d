"""Flow control arithmetic (RFC 9113 sections 5.2 and 6.9).

Credit for the connection goes back when bytes arrive, credit for a stream when its reader has taken them: a slow reader
stops only itself. Windows start small and grow for streams that move bulk and whose reader keeps up.
"""

from __future__ import annotations

from .frames import LARGEST_WINDOW, ConnectionFailed, ErrorCode

RETURN_SHIFT = 2  # credit goes back in quarters of the window: few frames, and the sender never runs dry
BULK_BYTES_PER_TURN = 4096  # a stream that brings less per turn is a conversation, which a small window does not slow


def widened(credit: int, increment: int) -> int:
    """Send credit after a WINDOW_UPDATE or a change of INITIAL_WINDOW_SIZE; OverflowError beyond 2^31-1."""
    credit += increment
    if credit > LARGEST_WINDOW:
        raise OverflowError(f"a flow-control window of {credit} bytes")
    return credit


def grown(window: int, unread: int, taken: int, turns: int, most: int) -> int:
    """The size that a stream's receive window should have from now on, never less than `window`.

    taken: bytes that its reader took since credit went back last; unread: bytes that it has not taken yet;
    turns: how often the connection received anything meanwhile; most: the size that memory allows.
    """
    keeps_up = unread <= window >> RETURN_SHIFT
    bulk = taken >= turns * BULK_BYTES_PER_TURN
    return max(window, min(window * 2, most)) if keeps_up and bulk else window


class Budget:
    """Bytes by which the windows of several connections together may still grow."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size


class ConnectionWindow:
    """What the peer may still send on the whole connection."""

    __slots__ = ("allowance", "low", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.allowance = size
        self.low = size - (size >> RETURN_SHIFT)  # where credit is due

    def take(self, size: int) -> None:
        """Counts a DATA frame. Raises ConnectionFailed when the peer sends more than it may."""
        if size > self.allowance:
            raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "DATA beyond the connection's window")
        self.allowance -= size

    def refill(self) -> int:
        """The increment of the WINDOW_UPDATE that is sent now: once `allowance` is down to `low`."""
        owed = self.size - self.allowance
        self.allowance = self.size
        return owed
