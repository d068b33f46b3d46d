"""The soak: its verdict on made-up samples, and one of a minute on a real mesh."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from perf.soak import look
from perf.soak.__main__ import Soak, _report
from perf.soak.verdict import MIB, Finding, Sample, growth, highest, left_over, memory

WORKER = "node1 worker 1"


def samples(*sizes: float) -> list[Sample]:
    """One per second."""
    return [Sample(float(at), {WORKER: int(size)}, {WORKER: 20 + at % 3}) for at, size in enumerate(sizes)]


def complaint(*sizes: float) -> str:
    (finding,) = memory(samples(*sizes), {WORKER: 0}, {WORKER: int(sizes[-1])})
    return finding.complaint


def test_growth_is_that_of_the_line_through_all_points() -> None:
    assert growth([(0, 10), (1, 12), (2, 14)]) == pytest.approx(4)
    assert growth([(0, 1)]) == 0


def test_memory_that_comes_and_goes_is_no_leak() -> None:
    chance = random.Random(1)
    assert complaint(*(30 * MIB + chance.random() * 3 * MIB for _ in range(120))) == ""


def test_what_rises_only_in_the_beginning_is_no_leak() -> None:
    assert complaint(*(min(at, 30) * MIB for at in range(120))) == ""


def test_what_rises_all_the_time_is_one() -> None:
    assert "rises" in complaint(*(30 * MIB + at * 0.1 * MIB for at in range(120)))


def test_a_process_that_was_replaced_is_told() -> None:
    gone = [*samples(1, 1), Sample(2.0, {}, {})]
    (finding,) = memory(gone, {WORKER: 1}, {})
    assert "replaced" in finding.complaint


def test_what_is_left_over_is_told_and_what_never_was_is_not() -> None:
    before = {"files": 20, "map enrolled": 2, "sockets": 3, "waiting": 0}
    after = {"files": 21, "map enrolled": 2, "sockets": 2, "waiting": 0}
    found = {one.subject: one.complaint for one in left_over(before, {"files": 90}, after)}
    assert found == {"files": "1 left behind", "map enrolled": "", "sockets": ""}


def test_the_most_of_each_count() -> None:
    assert highest(samples(1, 1, 1), [{"x": 1}, {"x": 5}, {"x": 2}]) == {f"{WORKER}: files": 22, "x": 5}


LEAKING = """
import sys
kept = []
for line in sys.stdin:
    size = int(line)
    kept.append((b"x" * size, open("/dev/null")))
    print(flush=True)
"""


def watched(per_step: int) -> list[Sample]:
    """A real process that keeps some bytes and a file in each of 30 steps."""
    found = []
    with subprocess.Popen([sys.executable, "-c", LEAKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for at in range(30):
            process.stdin.write(b"%d\n" % per_step)
            process.stdin.flush()
            process.stdout.readline()
            found.append(look.sample(float(at), {WORKER: process.pid}))
        process.stdin.close()
    return found


@pytest.mark.parametrize(("per_step", "words"), [(MIB, "rises by more than 4 MiB"), (MIB // 20, "")])
def test_a_real_process_that_leaks_is_found(per_step: int, words: str) -> None:
    seen = watched(per_step)
    (finding,) = memory(seen, seen[0].memory, seen[-1].memory)
    assert finding.complaint == words
    (files,) = left_over(seen[0].files, {}, seen[-1].files)
    assert files.complaint == "29 left behind"


@pytest.mark.parametrize(
    ("complaint", "errors", "good"), [("", 0, True), ("rises by more than 4 MiB", 0, False), ("", 1, False)]
)
def test_one_complaint_or_failed_action_makes_the_soak_fail(complaint: str, errors: int, good: bool) -> None:
    finding = Finding(WORKER, "1", "2", "1", "", complaint)
    assert _report(Soak(100, 1.0, errors, "", [finding]), 1) is good


@pytest.mark.root
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("load_program")
def test_a_minute_at_half_load() -> None:
    command = [sys.executable, "-m", "perf.soak", "--minutes", "1", "--instance", "ambit-test-soak"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failed" in done.stdout
    assert "nothing was left behind" in done.stdout
