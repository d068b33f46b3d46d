"""SETTINGS (RFC 9113 section 6.5): what this end says, and what the peer's mean."""

from __future__ import annotations

from collections.abc import Sequence

from .frames import DEFAULT_WINDOW, LARGEST_MAX_FRAME, LARGEST_WINDOW, SMALLEST_MAX_FRAME, ConnectionFailed, ErrorCode
from .frames import Setting as S
from .headers import TABLE_SIZE
from .limits import Limits, Role

STREAMS_BEFORE_SETTINGS = 100  # what a client opens at most before it knows the server's limit, as Istio's ztunnel
FLAGS = (S.ENABLE_PUSH, S.ENABLE_CONNECT_PROTOCOL)


def own_settings(role: Role, limits: Limits) -> Sequence[tuple[int, int]]:
    """The one SETTINGS frame that this end sends."""
    settings: list[tuple[int, int]] = [
        (S.INITIAL_WINDOW_SIZE, limits.initial_window),
        (S.MAX_FRAME_SIZE, limits.max_frame),
        (S.MAX_HEADER_LIST_SIZE, limits.max_header_list),
    ]
    if role is Role.CLIENT:
        return [(S.ENABLE_PUSH, 0), *settings]
    return [(S.MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams), *settings]


class PeerSettings:
    """The peer's settings in force; the values are those of RFC 9113 until its first SETTINGS frame."""

    __slots__ = ("_role", "initial_window", "max_concurrent_streams", "max_frame", "small_table")

    def __init__(self, role: Role) -> None:
        self._role = role  # ours
        self.initial_window = DEFAULT_WINDOW
        self.max_frame = SMALLEST_MAX_FRAME
        self.max_concurrent_streams = STREAMS_BEFORE_SETTINGS
        self.small_table = False  # a dynamic table smaller than the first one: our next header block has to confirm it

    def apply(self, name: int, value: int) -> None:
        """Takes one setting over. Raises ConnectionFailed for a value that the RFC forbids."""
        if name == S.INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}")
            self.initial_window = value
        elif name == S.MAX_FRAME_SIZE:
            if not SMALLEST_MAX_FRAME <= value <= LARGEST_MAX_FRAME:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
            self.max_frame = value
        elif name == S.MAX_CONCURRENT_STREAMS:
            self.max_concurrent_streams = value
        elif name == S.HEADER_TABLE_SIZE:
            self.small_table = self.small_table or value < TABLE_SIZE
        elif name in FLAGS:
            self._check_flag(name, value)

    def _check_flag(self, name: int, value: int) -> None:
        pushes = name == S.ENABLE_PUSH and value == 1 and self._role is Role.CLIENT
        if value > 1 or pushes:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"{S(name).name} is {value}")
