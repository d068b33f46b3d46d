"""Logging, waiting, readiness and drain: what every process of the mesh shares."""

from __future__ import annotations

import json
import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.model.address import SocketAddress, canonical
from mesh.model.identity import SpiffeId
from mesh.runtime import logs
from mesh.runtime.backoff import Backoff
from mesh.runtime.drain import drain_deadline
from mesh.runtime.lines import LineWriter
from mesh.runtime.readiness import Readiness
from mesh.runtime.style import Style

WHEN = 1_700_000_000.25


def test_waits_double_up_to_the_cap_and_start_over_after_success() -> None:
    backoff = Backoff(1, 5)
    assert [backoff.after_failure(0.5) for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.succeeded()
    assert backoff.after_failure(0.5) == 1


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 50))
def test_jitter_stays_within_its_share(chance: float, failures: int) -> None:
    backoff = Backoff(0.1, 15, jitter=0.2)
    waits = [backoff.after_failure(chance) for _ in range(failures)]
    assert all(0.08 <= wait <= 18 for wait in waits)


@pytest.mark.parametrize(
    ("termination", "grace", "expected"),
    [(7, 30, 7), (None, 30, 25), (None, 10, 9), (None, 1, 1), (None, None, 5), (0, 30, 0)],
)
def test_the_drain_deadline_is_istios(termination: float | None, grace: float | None, expected: float) -> None:
    assert drain_deadline(termination, grace) == expected


def test_readiness_says_what_it_waits_for() -> None:
    readiness = Readiness(mesh="not known")
    assert not readiness.ready
    assert readiness.waiting == {"mesh": "not known"}
    readiness.met("mesh")
    readiness.met("never heard of")
    assert readiness.ready


def test_lines_arrive_in_order() -> None:
    reader, writer = os.pipe()
    lines = LineWriter(writer)
    for number in range(1000):
        lines.write(str(number))
    lines.close()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        assert pipe.read().splitlines() == [str(number) for number in range(1000)]


def test_a_pipe_that_nobody_reads_costs_lines_and_not_time_or_memory() -> None:
    reader, writer = os.pipe()
    lines = LineWriter(writer, capacity=100)
    for _ in range(5000):
        lines.write("x" * 1000)  # would block for ever, were it written here
    assert lines.dropped > 4000
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        seen = b""
        while b"log lines were dropped" not in seen:
            seen = seen[-100:] + pipe.read(65536)
        lines.close()
    os.close(writer)


def test_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = LineWriter(writer)
    lines.write("lost")
    lines.close()
    assert lines.dropped == 1
    os.close(writer)


def test_text_lines_have_istios_form() -> None:
    fields = {"src.addr": "10.0.0.1:80", "error": "", "bytes_sent": 3, "none": None, "q": 'a "b"'}
    style = Style()
    line = style.line(WHEN, "info", "access", "connection complete", [style.pairs(fields)])
    assert line == (
        "2023-11-14T22:13:20.250000Z\tinfo\taccess\tconnection complete\t"
        'src.addr="10.0.0.1:80" bytes_sent=3 q="a \\"b\\""'
    )


@given(st.text(), st.text())
def test_one_record_is_one_line(message: str, value: str) -> None:
    for as_json in (True, False):
        style = Style(as_json)
        line = style.line(WHEN, "info", "t", message, [style.pairs({"field": value}), "", style.pairs({"n": 1})])
        assert "\n" not in line
        if as_json:
            assert json.loads(line)["message"] == message
            assert json.loads(line)["n"] == 1


@pytest.mark.parametrize("as_json", [True, False])
def test_addresses_and_identities_are_words(as_json: bool) -> None:
    style = Style(as_json)
    address, identity = SocketAddress(canonical("fd00::1"), 80), SpiffeId("cluster.local", "shop", "web")
    line = style.line(WHEN, "info", "t", "m", [style.pairs({"a": address, "i": identity})])
    assert '"[fd00::1]:80"' in line
    assert '"spiffe://cluster.local/ns/shop/sa/web"' in line


def test_levels_by_target() -> None:
    assert logs.parse_levels("info,access=off, xds=debug") == {"": "info", "access": "off", "xds": "debug"}
    with pytest.raises(ValueError, match="'loud' is not LEVEL"):
        logs.parse_levels("info,loud")


def test_records_go_where_and_how_they_were_told_to() -> None:
    reader, writer = os.pipe()
    lines = LineWriter(writer)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        logs.configure(lines, True, {"": "warn", "test.quiet": "error"})
        logging.getLogger("test.loud").warning("port %d is taken", 80, extra={logs.FIELDS: {"port": 80}})
        logging.getLogger("test.quiet").warning("unheard")
        logging.getLogger("test.loud").info("unheard")
    finally:
        root.handlers[:], root.level = before
        lines.close()
    os.close(writer)
    with os.fdopen(reader) as pipe:
        (line,) = pipe.read().splitlines()
    shown = json.loads(line)
    assert (shown["level"], shown["scope"], shown["message"], shown["port"]) == (
        "warn",
        "test.loud",
        "port 80 is taken",
        80,
    )
