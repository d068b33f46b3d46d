"""From measurements to medians and ratios, and to perf/results.json. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from perf.bench.cases import METRICS, Case, Job, Metric, Name

DIGITS = 4  # significant ones: the machine does not repeat more


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of one system, over all runs."""

    case: str
    system: str
    metric: str
    unit: str
    median: float
    min: float
    max: float
    runs: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a metric of a case, for every system that has it."""

    case: Case
    metric: Metric
    results: Mapping[Name, Result]

    def ratio(self, system: Name, to: Name) -> float | None:
        """None where one of them was not measured, or is nothing (no proxy, no CPU)."""
        above, below = self.results.get(system), self.results.get(to)
        return above.median / below.median if above and below and below.median > 0 else None


def rows(cases: Sequence[Case], measured: Iterable[tuple[Job, Mapping[str, float]]]) -> list[Row]:
    """`measured`: per job its figures by metric, in the load program's units."""
    values: dict[tuple[str, Name, str], list[float]] = {}
    for job, figures in measured:
        for name, value in figures.items():
            values.setdefault((job.case.name, job.system, name), []).append(value)
    table = []
    for case in cases:
        for metric in METRICS[case.mode]:
            found = {
                system: _result(case, system, metric, values[case.name, system, metric.name])
                for system in case.systems
                if (case.name, system, metric.name) in values
            }
            if found:
                table.append(Row(case, metric, found))
    return table


def as_json(table: Iterable[Row]) -> list[dict[str, object]]:
    return [asdict(result) for row in table for result in row.results.values()]


def _result(case: Case, system: Name, metric: Metric, values: Sequence[float]) -> Result:
    scaled = [value * metric.scale for value in values]
    middle, least, most = (_short(each) for each in (statistics.median(scaled), min(scaled), max(scaled)))
    return Result(case.name, str(system), metric.name, metric.unit, middle, least, most, len(scaled))


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
