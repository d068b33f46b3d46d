"""What is known of an exchange between an app and its waypoint, however the bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.plan.unanswered import MOST, Unanswered

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
PUT = b"PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"PUT /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
TRAILERS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def after(*words: tuple[str, bytes], step: int = 1 << 20) -> Unanswered:
    """`words`: who says what, in pieces of `step` bytes."""
    found = Unanswered()
    for who, text in words:
        for at in range(0, len(text), step):
            piece = text[at : at + step]
            found.said(piece) if who == "app" else found.heard([memoryview(piece)])
    return found


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("response", [OK, CHUNKS, TRAILERS, EMPTY, CONTINUE + OK])
def test_each_request_of_a_connection_is_told_from_the_one_before(response: bytes, step: int) -> None:
    found = after(("app", POST), ("waypoint", response), ("app", PUT), step=step)
    assert found.repeatable() == PUT
    assert not after(("app", POST), ("waypoint", response), step=step).answerable
    assert not after(("app", POST), ("waypoint", response), step=step).doubtful


@pytest.mark.parametrize("request_", [GET, PUT])
def test_what_is_idempotent_and_whole_may_be_repeated(request_: bytes) -> None:
    assert after(("app", request_)).repeatable() == request_


@pytest.mark.parametrize(
    "words",
    [
        [("app", POST)],
        [("app", CHUNKED)],
        [("app", PUT[:-1])],
        [("app", b"PUT / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (2 * MOST) + bytes(2 * MOST))],
        [("app", PUT), ("waypoint", CONTINUE)],
    ],
)
def test_what_may_not_be_repeated_may_be_answered(words: list[tuple[str, bytes]]) -> None:
    found = after(*words)
    assert found.repeatable() == b""
    assert found.answerable


@pytest.mark.parametrize(
    "words",
    [
        [],
        [("app", GET[:-1])],
        [("app", GET), ("waypoint", b"H")],
        [("app", GET), ("waypoint", OK[:-1])],
        [("app", GET), ("waypoint", CHUNKS[:-1])],
        [("app", GET), ("waypoint", OK)],
        [("app", GET + GET)],
        [("app", GET), ("app", GET)],
        [("app", GET), ("waypoint", OK[:-1]), ("app", GET), ("waypoint", OK[-1:])],
        [("app", GET), ("waypoint", OK + OK), ("app", GET)],
        [("app", GET), ("waypoint", b"HTTP/1.1 200 OK\r\n\r\nuntil the end"), ("app", GET)],
        [("app", CHUNKED), ("waypoint", OK), ("app", GET)],
        [("app", PUT[:-1]), ("waypoint", OK), ("app", b"c"), ("app", GET)],
        [("app", GET), ("waypoint", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), ("app", GET)],
        [("app", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")],
        [("app", b"\x16\x03\x01\x02\x00\x01")],
        [("app", b"GET /\r\n\r\n")],
        [("waypoint", b"220 mail\r\n"), ("app", GET)],
    ],
    ids=str,
)
def test_in_doubt_neither(words: list[tuple[str, bytes]]) -> None:
    found = after(*words)
    assert found.repeatable() == b""
    assert not found.answerable


def test_what_was_repeated_once_is_answered_the_second_time() -> None:
    found = Unanswered(to_repeat=False)
    found.said(GET)
    assert found.repeatable() == b""
    assert found.answerable
    found.heard([memoryview(OK)])
    found.said(GET)
    assert found.repeatable() == GET


@given(
    st.lists(st.tuples(st.booleans(), st.one_of(st.binary(), st.sampled_from([GET, PUT, OK, CHUNKS, b"0\r\n\r\n"]))))
)
def test_any_bytes_are_read(words: list[tuple[bool, bytes]]) -> None:
    found = Unanswered()
    for app, data in words:
        found.said(data) if app else found.heard([memoryview(data)])
    assert found.answerable or not found.repeatable()


def test_only_a_connection_at_rest_that_was_not_to_be_closed_can_be_overlooked() -> None:
    last = OK.replace(b"\r\n\r\n", b"\r\nConnection: Close\r\n\r\n")
    assert after(("app", GET), ("waypoint", OK)).overlooked
    assert after(("app", GET), ("waypoint", OK), ("app", GET)).overlooked
    assert not after(("app", GET), ("waypoint", last)).overlooked
    assert not after(("app", GET)).overlooked
    assert not after().overlooked
