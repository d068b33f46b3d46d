"""The frame layer of HTTP/2 (RFC 9113 sections 4, 6 and 7): numbers, the nine-byte head, and how a connection fails."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# A frame's head is length (24 bits), type (8), flags (8), stream (32, top bit reserved). Length and type make one word.
HEAD: Final = Struct(">IBI")
HEAD_SIZE: Final = 9
pack_head = HEAD.pack_into
unpack_head = HEAD.unpack_from

# Frame types: plain integers, since the byte path compares them for every frame.
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

TLS_RECORD: Final = 16384  # a DATA frame of 16375 bytes and its head fill one record
SMALLEST_MAX_FRAME: Final = 16384
LARGEST_MAX_FRAME: Final = (1 << 24) - 1
DEFAULT_WINDOW: Final = 65535
LARGEST_WINDOW: Final = (1 << 31) - 1
LARGEST_STREAM: Final = (1 << 31) - 1


class Setting(IntEnum):
    """Settings of RFC 9113 section 6.5.2 and RFC 8441."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


class ErrorCode(IntEnum):
    """Error codes of RST_STREAM and GOAWAY (RFC 9113 section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionFailed(Exception):
    """A connection error (RFC 9113 section 5.4.1). Its GOAWAY is staged: flush, then close the connection."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class StreamFailed(Exception):
    """A stream error (RFC 9113 section 5.4.2): the stream is reset, the connection goes on."""

    def __init__(self, stream: int, code: ErrorCode, reason: str) -> None:
        super().__init__(f"stream {stream}: {code.name}: {reason}")
        self.stream = stream
        self.code = code
        self.reason = reason


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def number(value: int) -> bytes:
    """Four bytes in network order, as in WINDOW_UPDATE, RST_STREAM and GOAWAY."""
    return value.to_bytes(4, "big")


_SETTING = Struct(">HI")


def pack_settings(settings: Iterable[tuple[int, int]]) -> bytes:
    """The payload of a SETTINGS frame."""
    return b"".join(_SETTING.pack(name, value) for name, value in settings)


def unpack_settings(payload: bytes) -> list[tuple[int, int]]:
    """Settings in the order in which they have to be applied; `payload` is a multiple of six bytes."""
    return list(_SETTING.iter_unpack(payload))
