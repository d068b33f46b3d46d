"""The figures in docs/performance.md: written by the run that measured them, so the page cannot claim others. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from perf.bench.cases import Name
from perf.bench.results import Result, Row
from perf.bench.table import figure, number

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
HEAD = (
    "| case | metric | Ambit (least to most) | Envoy | HAProxy | no mesh | Ambit / Envoy |",
    "|---|---|---|---|---|---|---|",
)
OTHERS = (Name.ENVOY, Name.HAPROXY, Name.DIRECT)


def insert(page: str, table: Sequence[Row], conditions: str) -> str:
    """The page with new figures between its marks. Raises ValueError when it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    lines = (*HEAD, *(_line(row) for row in table), "", f"{conditions}.")
    return "\n".join([before + begin, *lines, end + after])


def _line(row: Row) -> str:
    subject = Name.UNENROLLED if Name.UNENROLLED in row.results else Name.AMBIT
    own, ratio = row.results.get(subject), row.ratio(subject, Name.ENVOY)
    cells = [
        row.case.title + (" (not enrolled)" if subject is Name.UNENROLLED else ""),
        f"{row.metric.name}, {row.metric.unit}",
        f"{number(own)} ({_spread(own)})" if own else "-",
        *(number(row.results.get(other)) for other in OTHERS),
        "-" if ratio is None else f"{ratio:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _spread(result: Result) -> str:
    return f"{figure(result.min)} to {figure(result.max)}"
