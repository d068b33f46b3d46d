"""The table at the end of a run: medians, and what they are in Envoy's and in no mesh's."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from perf.bench.cases import Name
from perf.bench.results import Result, Row

NOISE = 0.03  # a ratio that differs less from 1 means nothing on a machine that does other things too


def render(table: Sequence[Row], systems: Sequence[Name]) -> Table:
    """One line per metric. Ratios of Ambit are green where it is ahead, red where it is behind."""
    drawn = Table(box=box.SIMPLE_HEAD, highlight=False)
    for head in ("case", "metric", "unit"):
        drawn.add_column(head, no_wrap=True)
    for head in (*systems, "ambit/envoy", "ambit/direct"):
        drawn.add_column(str(head), justify="right", no_wrap=True)
    before = ""
    for row in table:
        if before and row.case.name != before:
            drawn.add_section()
        cells = [number(row.results.get(system)) for system in systems]
        ratios = [_ratio(row, to) for to in (Name.ENVOY, Name.DIRECT)]
        head = row.case.name if row.case.name != before else ""
        drawn.add_row(head, row.metric.name, row.metric.unit, *cells, *ratios)
        before = row.case.name
    return drawn


def number(result: Result | None) -> str:
    return "-" if result is None else figure(result.median)


def figure(value: float) -> str:
    """As a person writes it: three digits that matter, no more."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _ratio(row: Row, to: Name) -> Text:
    subject = Name.UNENROLLED if Name.UNENROLLED in row.results else Name.AMBIT
    ratio = row.ratio(subject, to)
    if ratio is None:
        return Text("-")
    gain = ratio - 1 if row.metric.more_is_better else 1 - ratio
    style = "" if to is not Name.ENVOY or abs(gain) < NOISE else "green" if gain > 0 else "red"
    return Text(f"{ratio:.2f}", style=style)
