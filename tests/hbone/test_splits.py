"""However the network cuts the bytes, the same things happen."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.hbone import Connection, ConnectionFailed, Limits, Role
from tests.hbone import wire
from tests.hbone.ends import Recorder, drain

LIMITS = Limits(initial_window=65535, connection_window=70_000, max_frame=16384, max_header_list=4096)

streams = st.sampled_from([0, 1, 3, 5, 7])
payloads = st.binary(max_size=300)


@st.composite
def padded(draw: st.DrawFn) -> bytes:
    padding = draw(st.integers(0, 20))
    return bytes((padding,)) + draw(payloads) + bytes(padding)


frames = st.one_of(
    st.builds(wire.raw, st.just(wire.DATA), st.sampled_from([0, 0, 0, 1]), streams, payloads),
    st.builds(wire.raw, st.just(wire.DATA), st.sampled_from([8, 9]), streams, padded()),
    st.builds(wire.headers, streams, st.sampled_from([wire.CONNECT, wire.GET, wire.OK, [("a", "b")]])),
    st.builds(wire.headers, streams, st.just(wire.CONNECT), st.sampled_from([0, 5])),
    st.builds(wire.raw, st.just(wire.CONTINUATION), st.just(4), streams, st.just(b"")),
    st.builds(wire.update, streams, st.sampled_from([0, 1, 1000, (1 << 31) - 1])),
    st.builds(wire.rst, streams),
    st.builds(wire.settings, st.tuples(st.sampled_from([1, 4, 5, 99]), st.sampled_from([0, 16384, 100_000]))),
    st.builds(wire.raw, st.just(wire.PING), st.sampled_from([0, 1]), st.just(0), st.just(bytes(8))),
    st.builds(wire.goaway, streams, st.integers(0, 14), payloads),
    st.builds(wire.raw, st.sampled_from([2, 10, 99]), st.integers(0, 255), streams, st.binary(min_size=5, max_size=5)),
)
# Most sequences begin with tunnels, or nothing deep is ever reached.
openings = st.sampled_from(
    [b"", wire.headers(1, wire.CONNECT), wire.headers(1, wire.CONNECT) + wire.headers(3, wire.GET)]
)
conversations = st.builds(lambda opening, rest: opening + b"".join(rest), openings, st.lists(frames, max_size=25))


def outcome(role: Role, data: bytes, cuts: list[int]) -> tuple[object, ...]:
    """Everything that can be seen of a connection that gets `data` in these cuts."""
    recorder = Recorder()
    connection = Connection(role, recorder, LIMITS)
    if role is Role.CLIENT:
        for _ in range(3):
            connection.open("10.0.0.1:80")
    failure = None
    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            room = connection.receive_buffer()
            room[: end - start] = data[start:end]
            connection.received(end - start)
    except ConnectionFailed as failed:
        failure = str(failed)
    # Credit for the connection goes back once per call of received(), so how often depends on the cuts.
    said = [frame for frame in wire.read(drain(connection)) if (frame.kind, frame.stream) != (wire.UPDATE, 0)]
    return recorder.events, said, failure, connection.open_streams


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(Role), conversations, st.data())
def test_any_split_gives_the_same_events(role: Role, rest: bytes, data: st.DataObject) -> None:
    whole = (wire.PREFACE if role is Role.SERVER else b"") + wire.settings((3, 100)) + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    expected = outcome(role, whole, [])
    assert outcome(role, whole, cuts) == expected
    if len(whole) < 2000:
        assert outcome(role, whole, list(range(1, len(whole)))) == expected
