"""The benchmark: what it makes of measurements, and one real measurement from the command line to results.json."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from controller.authority import issuer
from controller.authority.authority import Authority
from mesh.model.identity import SpiffeId
from perf.bench import chart, document, table
from perf.bench.cases import CASES, METRICS, Case, Job, Mode, Name, schedule, select
from perf.bench.certificates import TRUST_DOMAIN, issue, issue_from
from perf.bench.quiet import Moment, cores_of_others
from perf.bench.results import Result, Row, as_json, rows

ROUND_TRIPS = next(case for case in CASES if case.mode is Mode.ROUND_TRIPS)
BULK = next(case for case in CASES if case.mode is Mode.DOWN)
SHAPE = {"case", "system", "metric", "unit", "median", "min", "max", "runs"}


def measured(case: Case, system: Name, *runs: dict[str, float]) -> list[tuple[Job, dict[str, float]]]:
    return [(Job(run, case, system), figures) for run, figures in enumerate(runs)]


# --- cases


def test_names_and_metrics_of_cases_are_unmistakable() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(METRICS[case.mode] for case in CASES)


def test_cases_are_chosen_by_how_their_names_begin_and_cut_to_the_systems() -> None:
    chosen = select(["rr-128", "label"], [Name.AMBIT, Name.ENVOY])
    assert [case.name for case in chosen] == ["rr-128-x1", "rr-128-x32", "label"]
    assert [case.systems for case in chosen] == [(Name.AMBIT, Name.ENVOY)] * 2 + [(Name.AMBIT,)]
    assert select([], []) == CASES


@pytest.mark.parametrize(
    ("cases", "systems", "words"),
    [(["rr", "nonsense"], [], "no case 'nonsense'"), (["beside"], [Name.ENVOY], "no chosen case is measured on envoy")],
)
def test_what_cannot_be_chosen_is_named(cases: list[str], systems: list[Name], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        select(cases, systems)


@given(st.integers(1, 9))
def test_systems_alternate_and_each_has_as_many_turns(runs: int) -> None:
    jobs = schedule(CASES, runs)
    turns = Counter((job.case.name, job.system) for job in jobs)
    for case in CASES:
        assert {turns[case.name, system] for system in case.systems} == {min(runs, case.most_runs) * case.repeats}
    firsts = {job.run: job.system for job in reversed(jobs) if job.case == ROUND_TRIPS}
    assert set(firsts.values()) == set(ROUND_TRIPS.systems[:runs])
    alone = [job.case.interleaved for job in jobs]
    assert alone == sorted(alone, reverse=True)  # those that start proxies anew come last


# --- results


def test_figures_are_medians_in_the_units_of_the_metrics() -> None:
    found = rows([BULK], measured(BULK, Name.AMBIT, {"rate": 3e9}, {"rate": 1e9}, {"rate": 2.00004e9}))
    assert as_json(found) == [
        {
            "case": "down-x1",
            "system": "ambit",
            "metric": "rate",
            "unit": "GB/s",
            "median": 2.0,
            "min": 1.0,
            "max": 3.0,
            "runs": 3,
        }
    ]


def test_what_was_not_measured_is_left_out_and_not_nothing() -> None:
    found = rows([ROUND_TRIPS, BULK], measured(ROUND_TRIPS, Name.DIRECT, {"p50": 10, "rate": 0}))
    assert [row.metric.name for row in found] == ["p50", "rate"]
    assert found[0].ratio(Name.AMBIT, Name.DIRECT) is None
    assert found[1].ratio(Name.DIRECT, Name.DIRECT) is None  # nothing to divide by


@given(st.lists(st.floats(1, 1e12), min_size=1, max_size=9))
def test_a_spread_holds_its_median(values: list[float]) -> None:
    (row,) = rows([ROUND_TRIPS], measured(ROUND_TRIPS, Name.AMBIT, *({"p50": value} for value in values)))
    result = row.results[Name.AMBIT]
    assert result.min <= result.median <= result.max
    assert result.runs == len(values)
    assert result.median == pytest.approx(sorted(values)[len(values) // 2], rel=1e-3) or len(values) % 2 == 0


def test_results_have_the_shape_that_others_read() -> None:
    assert {field.name for field in fields(Result)} == SHAPE


# --- what people see


def both(case: Case, metric: str, ambit: float, envoy: float) -> list[Row]:
    jobs = measured(case, Name.AMBIT, {metric: ambit}) + measured(case, Name.ENVOY, {metric: envoy})
    return rows([case], jobs)


def printed(found: list[Row]) -> str:
    console = Console(file=io.StringIO(), width=140, force_terminal=True, color_system="standard")
    console.print(table.render(found, [Name.AMBIT, Name.ENVOY]))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


GREEN, RED = "\x1b[32m", "\x1b[31m"


@pytest.mark.parametrize(
    ("case", "metric", "ambit", "envoy", "colour", "ratio"),
    [
        (ROUND_TRIPS, "p50", 50, 100, GREEN, "0.50"),
        (ROUND_TRIPS, "p50", 200, 100, RED, "2.00"),
        (ROUND_TRIPS, "rate", 200, 100, GREEN, "2.00"),
        (BULK, "rate", 5e8, 1e9, RED, "0.50"),
        (ROUND_TRIPS, "p50", 101, 100, "", "1.01"),
    ],
)
def test_the_table_says_who_is_ahead(
    case: Case, metric: str, ambit: float, envoy: float, colour: str, ratio: str
) -> None:
    text = printed(both(case, metric, ambit, envoy))
    assert re.search(f"{re.escape(colour)} *{ratio}", text)
    assert (GREEN in text, RED in text) == (colour == GREEN, colour == RED)


@pytest.mark.parametrize(("value", "text"), [(1234567.0, "1,234,567"), (12.345, "12.3"), (0.01234, "0.0123")])
def test_figures_are_written_as_people_do(value: float, text: str) -> None:
    assert table.number(Result("", "", "", "", value, value, value, 1)) == text
    assert table.number(None) == "-"


def bars(found: list[Row]) -> list[tuple[str, float, float]]:
    drawn = ElementTree.fromstring(chart.draw(found, "here & <now>"))
    shapes = [one for one in drawn.iter("{http://www.w3.org/2000/svg}rect") if one.get("height") == "12"]
    return [(one.get("class", ""), float(one.get("x", "")), float(one.get("width", ""))) for one in shapes]


def test_the_page_has_the_figures_of_the_last_run_alone() -> None:
    page = f"above\n{document.BEGIN}\nolder figures\n{document.END}\nbelow\n"
    once = document.insert(page, both(ROUND_TRIPS, "p50", 150, 100), "a Tuesday")
    assert "| 150 (150 to 150) | 100 | - | - | 1.50 |" in once
    assert once.startswith("above\n")
    assert once.endswith("below\n")
    assert "older" not in once
    assert document.insert(once, both(ROUND_TRIPS, "p50", 150, 100), "a Tuesday") == once
    with pytest.raises(ValueError, match="figures: begin"):
        document.insert("no marks", [], "")


def test_the_chart_shows_better_to_the_right_whatever_the_metric() -> None:
    quicker, slower = both(ROUND_TRIPS, "p50", 50, 100), both(ROUND_TRIPS, "p50", 200, 100)
    ((ahead, start, width),) = bars(quicker)
    ((behind, start_behind, width_behind),) = bars(slower)
    assert (ahead, behind) == ("ahead", "behind")
    assert start == pytest.approx(start_behind + width_behind)  # both end at Envoy's line
    assert width == pytest.approx(width_behind)  # twice as good is as far as half as good
    assert bars(both(ROUND_TRIPS, "rate", 2e9, 1))[0][2] == pytest.approx(2 * width)  # to the end of the scale


def test_what_has_no_partner_is_not_drawn() -> None:
    assert bars(rows([ROUND_TRIPS], measured(ROUND_TRIPS, Name.AMBIT, {"p50": 1}))) == []


def test_pairs_of_two_authorities_keep_their_roots(tmp_path: Path) -> None:
    """A proxy that is started anew reads its files again."""
    one = issue(tmp_path, "server")
    before = one.roots.read_text()
    now, identity = datetime.now(UTC), SpiffeId(TRUST_DOMAIN, "other", "waypoint")
    other = Authority(issuer.load_or_create(tmp_path / "other-ca", TRUST_DOMAIN, now), TRUST_DOMAIN)
    assert issue_from(other, tmp_path, identity, now).roots.read_text() != before
    assert one.roots.read_text() == before


def test_what_others_used_is_what_neither_we_nor_ours_did() -> None:
    before = Moment(clock=10, everyone=100, ours=40)
    assert cores_of_others(before, Moment(clock=14, everyone=108, ours=46)) == pytest.approx(0.5)
    assert cores_of_others(before, Moment(clock=14, everyone=104, ours=45)) == 0  # rounding of ticks


# --- the whole

RUN = """
import sys
from pathlib import Path
import typer
import perf.bench.__main__ as bench
bench.INSTANCE = "ambit-test-bench"  # not the one that a person may be measuring on
bench.ROOT, bench.RESULTS = Path(sys.argv[1]), Path(sys.argv[1]) / "results.json"
sys.argv[1:] = sys.argv[2:]
typer.run(bench.main)
"""


@pytest.mark.root
@pytest.mark.timeout(240)
@pytest.mark.usefixtures("load_program")
def test_a_run_from_the_command_line_to_its_results(tmp_path: Path) -> None:
    words = ["--case", "rr-128-x1", "--system", "direct", "--system", "ambit", "--runs", "2", "--seconds", "0.2"]
    done = subprocess.run([sys.executable, "-c", RUN, str(tmp_path), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert all(one.keys() == SHAPE for one in found)
    systems = {(one["system"], one["metric"]) for one in found}
    assert systems >= {(system, metric) for system in ("direct", "ambit") for metric in ("p50", "p99", "p999", "rate")}
    assert ("ambit", "cpu") in systems
    assert ("direct", "cpu") not in systems  # there is no proxy
    for one in found:
        assert one["case"] == "rr-128-x1"
        assert 0 <= one["min"] <= one["median"] <= one["max"]
        assert one["runs"] == 2
    assert "ambit/direct" in done.stdout
