"""Whatever two ends do in whatever order, and however slowly the network moves: every byte arrives once and in order,
and nobody sends more than it was granted."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesh.hbone import Connection, ErrorCode, Limits, Role
from tests.hbone.ends import Recorder, drain
from tests.hbone.meter import Meter

SMALL = Limits(
    stream_window=200_000,
    initial_window=65_535,
    connection_window=80_000,
    max_frame=16384,
    max_concurrent_streams=5,
    staging=20_000,
    receive_room=30_000,
)
LARGE_FRAMES = Limits(
    stream_window=200_000, initial_window=66_000, connection_window=100_000, max_frame=1 << 20, staging=100_000
)


class End(Recorder):
    """One end with what it knows: bytes sent, received and acknowledged per stream, and who may still send."""

    def __init__(self, role: Role, limits: Limits) -> None:
        super().__init__()
        self.connection = Connection(role, self, limits)
        self.meter = Meter()
        self.sent: dict[int, bytearray] = {}
        self.unread: dict[int, int] = {}
        self.live: set[int] = set()  # may send
        self.ended: set[int] = set()  # said END_STREAM
        self.heard_end: set[int] = set()
        self.broken: set[int] = set()  # reset by either end
        self.unanswered: set[int] = set()

    def request_received(self, stream: int, headers: dict[str, str], ended: bool) -> None:
        self.unanswered.add(stream)

    def response_received(self, stream: int, status: int, headers: dict[str, str], ended: bool) -> None:
        assert status == 200

    def data_received(self, stream: int, pieces: list[memoryview]) -> None:
        assert stream not in self.broken | self.heard_end
        super().data_received(stream, pieces)
        self.unread[stream] = self.unread.get(stream, 0) + sum(map(len, pieces))

    def stream_ended(self, stream: int) -> None:
        assert stream not in self.broken | self.heard_end
        self.heard_end.add(stream)

    def stream_reset(self, stream: int, code: int) -> None:
        assert code in (ErrorCode.CANCEL, ErrorCode.REFUSED_STREAM)
        assert stream not in self.broken
        self.gone(stream)

    def gone(self, stream: int) -> None:
        self.broken.add(stream)
        self.live.discard(stream)
        self.unanswered.discard(stream)


@dataclass
class Pipe:
    """Bytes under way from one end to the other."""

    source: End
    target: End
    bytes: bytearray = field(default_factory=bytearray)

    def fill(self) -> None:
        data = drain(self.source.connection)
        self.source.meter.said(data)
        self.bytes += data

    def move(self, most: int) -> None:
        while most > 0 and self.bytes:
            room = self.target.connection.receive_buffer()
            size = min(most, len(room), len(self.bytes))
            room[:size] = self.bytes[:size]
            self.target.meter.heard(bytes(self.bytes[:size]))
            del self.bytes[:size]
            self.target.connection.received(size)
            most -= size


class Interleaving(RuleBasedStateMachine):
    limits = (SMALL, SMALL)

    def __init__(self) -> None:
        super().__init__()
        client, server = (End(role, limits) for role, limits in zip(Role, self.limits, strict=True))
        self.ends = [client, server]
        self.pipes = [Pipe(client, server), Pipe(server, client)]
        self.counter = 0

    def pick(self, data: st.DataObject, streams: set[int]) -> int:
        return data.draw(st.sampled_from(sorted(streams)))

    @precondition(lambda self: self.ends[0].connection.available_streams > 0)
    @rule()
    def open(self) -> None:
        client = self.ends[0]
        client.live.add(client.connection.open("10.0.0.1:80", [("traceparent", f"00-{self.counter}")]))

    @precondition(lambda self: self.ends[1].unanswered)
    @rule(data=st.data())
    def respond(self, data: st.DataObject) -> None:
        server = self.ends[1]
        stream = self.pick(data, server.unanswered)
        server.unanswered.remove(stream)
        server.connection.respond(stream, 200)
        server.live.add(stream)

    @rule(side=st.integers(0, 1), size=st.sampled_from([1, 128, 5000, 100_000]), end=st.booleans(), data=st.data())
    def send(self, side: int, size: int, end: bool, data: st.DataObject) -> None:
        me = self.ends[side]
        if not me.live:
            return
        stream = self.pick(data, me.live)
        room = me.connection.reserve(stream)
        if room is None:
            return
        size = min(size, len(room))
        self.counter += 1
        payload = (self.counter.to_bytes(4, "big") * (size // 4 + 1))[:size]
        room[:size] = payload
        me.connection.commit(stream, size, end)
        me.sent.setdefault(stream, bytearray()).extend(payload)
        if end:
            me.live.discard(stream)
            me.ended.add(stream)

    @rule(side=st.integers(0, 1), data=st.data())
    def end(self, side: int, data: st.DataObject) -> None:
        me = self.ends[side]
        if me.live:
            stream = self.pick(data, me.live)
            me.connection.end(stream)
            me.live.discard(stream)
            me.ended.add(stream)

    @rule(side=st.integers(0, 1), data=st.data())
    def reset(self, side: int, data: st.DataObject) -> None:
        me = self.ends[side]
        if me.live:
            stream = self.pick(data, me.live)
            me.connection.reset(stream, ErrorCode.CANCEL)
            me.gone(stream)

    @rule(side=st.integers(0, 1), part=st.floats(0, 1), data=st.data())
    def acknowledge(self, side: int, part: float, data: st.DataObject) -> None:
        me = self.ends[side]
        if me.unread:
            stream = self.pick(data, set(me.unread))
            size = int(me.unread[stream] * part)
            me.unread[stream] -= size
            me.connection.acknowledge(stream, size)

    @rule(side=st.integers(0, 1), size=st.sampled_from([1, 10, 1000, 1_000_000]))
    def move(self, side: int, size: int) -> None:
        self.pipes[side].move(size)

    @invariant()
    def what_is_staged_is_legal(self) -> None:
        for pipe in self.pipes:
            pipe.fill()

    @invariant()
    def what_arrived_is_what_was_sent(self) -> None:
        for pipe in self.pipes:
            for stream, arrived in pipe.target.bytes.items():
                assert pipe.source.sent[stream].startswith(arrived)

    def teardown(self) -> None:
        while any(pipe.bytes or pipe.source.connection.staged for pipe in self.pipes):
            for pipe in self.pipes:
                pipe.fill()
                pipe.move(1 << 30)
        for pipe in self.pipes:
            for stream in pipe.source.ended - pipe.source.broken - pipe.target.broken:
                assert stream in pipe.target.heard_end
                assert pipe.target.bytes.get(stream, b"") == pipe.source.sent.get(stream, b"")
        client, server = self.ends
        assert client.connection.open_streams == server.connection.open_streams
        assert client.connection.failure is server.connection.failure is None


class InterleavingOfLargeFrames(Interleaving):
    limits = (LARGE_FRAMES, LARGE_FRAMES)


class InterleavingOfUnequals(Interleaving):
    limits = (LARGE_FRAMES, SMALL)


QUICK = settings(max_examples=40, stateful_step_count=60, deadline=None)
TestInterleaving = Interleaving.TestCase
TestInterleavingOfLargeFrames = InterleavingOfLargeFrames.TestCase
TestInterleavingOfUnequals = InterleavingOfUnequals.TestCase
TestInterleaving.settings = TestInterleavingOfLargeFrames.settings = TestInterleavingOfUnequals.settings = QUICK
