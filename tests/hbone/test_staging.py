"""Payload behind frame heads in one buffer, for peers with small and with large frames."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.hbone import ErrorCode
from mesh.hbone.staging import Staging
from tests.hbone import wire
from tests.hbone.ends import Pair, send


@given(
    st.sampled_from([16384, 16385, 40_000, 65536, 1 << 20]),
    st.lists(st.tuples(st.integers(1, 300_000), st.booleans()), max_size=12),
    st.integers(16384, 300_000),
)
def test_what_is_committed_is_framed(peer_max_frame: int, chunks: list[tuple[int, bool]], data_room: int) -> None:
    staging = Staging(data_room, 1000)
    staging.set_peer_max_frame(peer_max_frame)
    sent, ends = bytearray(), 0
    for at, (size, end) in enumerate(chunks):
        room = staging.reserve(size)
        if room is None:
            assert staging.size >= data_room
            break
        payload = bytes((at + index) % 251 for index in range(0, len(room), 97)) * 98
        room[:] = payload[: len(room)]
        staging.commit(7, len(room), end)
        sent += payload[: len(room)]
        ends += end
    frames = list(wire.read(bytes(staging.staged())))
    assert b"".join(frame.payload for frame in frames) == sent
    assert all(frame.kind == wire.DATA and frame.stream == 7 for frame in frames)
    assert all(0 < len(frame.payload) <= peer_max_frame for frame in frames)
    assert sum(frame.flags for frame in frames) == ends
    assert sum(9 + len(frame.payload) for frame in frames) == staging.size


def test_a_frame_and_its_head_fill_a_tls_record() -> None:
    staging = Staging(256 << 10, 1000)
    assert len(staging.reserve(1 << 20) or b"") == 16375, "nothing was sent so far: the buffer is small"
    staging.commit(1, 16375, False)
    assert len(staging.reserve(1 << 20) or b"") == 16375, "a cell behind its data room"
    staging.commit(1, 16375, False)
    assert len(staging.reserve(1 << 20) or b"") == 14 * 16375
    staging.clear()
    assert len(staging.reserve(1 << 20) or b"") == 16 * 16375
    staging.commit(1, 16 * 16375, False)
    assert staging.size == 16 * 16384 == 256 << 10


def test_a_burst_of_frames_does_not_take_the_room_of_a_transfer() -> None:
    staging = Staging(256 << 10, 64 << 10)
    small = sys.getsizeof(staging.staged().obj)
    assert all(staging.put(bytes(300)) for _ in range(150))
    assert sys.getsizeof(staging.staged().obj) < 3 * small
    assert len(staging.reserve(1 << 20) or b"") == 16375, "and there is room to read into"
    staging.clear()
    staging.tidy()
    staging.tidy()
    assert sys.getsizeof(staging.staged().obj) == small


def test_full_buffers_offer_nothing_until_they_are_sent() -> None:
    pair = Pair()
    pair.exchange()
    stream = pair.tunnel()
    assert send(pair.client, stream, bytes(1 << 20)) > 0
    while send(pair.client, stream, bytes(100)):
        pass
    assert pair.client.reserve(stream) is None
    pair.exchange()


def test_a_commit_needs_its_own_reservation() -> None:
    pair = Pair()
    pair.exchange()
    one, other = pair.tunnel(), pair.tunnel()
    assert pair.client.reserve(one) is not None
    with pytest.raises(ValueError, match=f"stream {other}"):
        pair.client.commit(other, 10)
    pair.client.ping(bytes(8))  # lies where the reserved room was
    with pytest.raises(ValueError, match="reserved"):
        pair.client.commit(one, 10)
    assert pair.client.reserve(one) is not None
    pair.client.commit(one, 10)
    with pytest.raises(ValueError, match="reserved"):
        pair.client.commit(one, 10)
    assert pair.client.reserve(one) is not None
    pair.client.reset(one, ErrorCode.CANCEL)
    with pytest.raises(ValueError, match="reserved"):
        pair.client.commit(one, 10)


def test_a_reservation_that_is_not_used_leaves_no_trace() -> None:
    pair = Pair()
    pair.exchange()
    stream = pair.tunnel()
    room = pair.client.reserve(stream)
    assert room is not None
    room[:6] = b"secret"
    pair.client.end(stream)
    pair.exchange()
    assert pair.at_server.take() == [("ended", stream)]


def test_a_server_sends_nothing_before_its_response() -> None:
    pair = Pair()
    stream = pair.client.open("10.0.0.1:80")
    pair.exchange()
    assert pair.server.reserve(stream) is None
    with pytest.raises(ValueError, match="before its response"):
        pair.server.end(stream)
    pair.server.respond(stream, 200)
    with pytest.raises(ValueError, match="cannot be answered"):
        pair.server.respond(stream, 200)
    assert pair.server.reserve(stream) is not None


def test_a_buffer_that_is_not_filled_any_more_becomes_small() -> None:
    staging = Staging(256 << 10, 1000)
    for _ in range(3):
        staging.reserve(1 << 20)
        staging.commit(1, 16375, False)
    assert len(staging.reserve(1 << 20) or b"") > 16375
    staging.tidy()
    staging.tidy()
    assert len(staging.reserve(1 << 20) or b"") > 16375, "not while something is staged"
    staging.clear()
    staging.tidy()
    staging.tidy()
    assert len(staging.reserve(1 << 20) or b"") == 16375
