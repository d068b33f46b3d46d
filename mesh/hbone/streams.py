"""Which streams there are, and in which state (RFC 9113 section 5.1)."""

from __future__ import annotations

from collections import OrderedDict

from .frames import LARGEST_STREAM
from .limits import Role

NOT_RECEIVING = -1  # an allowance that refuses even an empty DATA frame
REMEMBERED = 1024  # closed streams whose end is remembered: what is in flight for them is no surprise


class Stream:
    """One open stream. Sizes in bytes."""

    __slots__ = (
        "allowance",
        "body_left",
        "credit",
        "ended_in",
        "ended_out",
        "gone",
        "head_received",
        "head_sent",
        "id",
        "is_connect",
        "owed",
        "turn",
        "waiting",
        "window",
    )

    def __init__(self, id: int, credit: int, window: int) -> None:
        self.id = id
        self.credit = credit  # what we may still send; negative after the peer shrank its windows
        self.window = window  # what the peer may have under way or unread here
        self.allowance = NOT_RECEIVING  # what the peer may still send
        self.owed = 0  # taken by the reader, not yet returned as credit
        self.turn = 0  # when credit was returned last
        self.waiting = False  # for credit of its own
        self.head_sent = self.head_received = False  # the final one: a request, or a response that is not 1xx
        self.ended_in = self.ended_out = False
        self.gone = False  # reset, or ended both ways
        self.is_connect = True
        self.body_left: int | None = None  # what Content-Length still promises, where it means anything

    @property
    def connected(self) -> bool:
        """Both heads are through: a tunnel, which carries DATA only (RFC 9113 section 8.5)."""
        return self.is_connect and self.head_sent and self.head_received

    def start_receiving(self) -> None:
        self.head_received = True
        self.allowance = self.window

    def end_in(self) -> None:
        self.ended_in = True
        self.allowance = NOT_RECEIVING


class StreamTable:
    """All streams of a connection. Only the client opens streams: push is off."""

    __slots__ = ("_closed", "highest", "open", "role")

    def __init__(self, role: Role) -> None:
        self.role = role
        self.open: dict[int, Stream] = {}
        self.highest = -1  # the highest stream that was ever opened; ids are odd
        self._closed: OrderedDict[int, bool] = OrderedDict()  # id to whether we reset it, the latest last

    @property
    def next_id(self) -> int:
        return self.highest + 2

    @property
    def exhausted(self) -> bool:
        return self.next_id > LARGEST_STREAM

    @property
    def count(self) -> int:
        """How many streams were opened so far, skipped ones included."""
        return (self.highest + 1) // 2

    def is_idle(self, id: int) -> bool:
        """Not opened yet, or never to be (an even id belongs to server push)."""
        return id > self.highest or not id & 1

    def was_closed(self, id: int) -> bool:
        """Closed lately, rather than skipped or long forgotten."""
        return id in self._closed

    def was_reset(self, id: int) -> bool:
        """We reset it lately: frames that the peer sent before it knew are to be ignored."""
        return self._closed.get(id, False)

    def add(self, stream: Stream) -> None:
        self.open[stream.id] = stream
        self.highest = max(self.highest, stream.id)

    def skip_to(self, id: int) -> None:
        """A stream that the peer opened and that does not come to life."""
        self.highest = max(self.highest, id)

    def close(self, id: int, *, reset_by_us: bool) -> Stream | None:
        self._closed[id] = reset_by_us
        if len(self._closed) > REMEMBERED:
            self._closed.popitem(last=False)
        stream = self.open.pop(id, None)
        if stream is not None:
            stream.gone = True
        return stream
