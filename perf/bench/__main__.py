"""Runs the benchmark: `make bench`, `make bench CASE="rr crr" SYSTEM="ambit envoy"`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from deploy.local.entry import CannotRun
from deploy.local.errors import LocalError
from perf.bench import chart, document, haproxy, requests, table, waypoints
from perf.bench.cases import CASES, L7, Case, Job, Mode, Name, schedule, select
from perf.bench.measure import Figures, measure
from perf.bench.quiet import cores_of_others, look
from perf.bench.results import as_json, rows
from perf.bench.systems import System, running
from perf.bench.testbed import INSTANCE, LOAD, Testbed, testbed

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "perf" / "results.json"
CHART = ROOT / "docs" / "performance.svg"
PAGE = ROOT / "docs" / "performance.md"
COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)

Measured = list[tuple[Job, Figures]]
CALIBRATION = 2.0  # seconds
BUSY = 0.2  # cores: from there on others show in the tails
WIDE = 124  # columns that the table needs: better a terminal that breaks lines than figures that are cut
console = Console(highlight=False, width=max(Console().width, WIDE))
trouble = Console(stderr=True, highlight=False)


def main(
    case: Annotated[list[str] | None, typer.Option(help="A case, or what names of cases begin with.")] = None,
    system: Annotated[list[Name] | None, typer.Option(help="A system to measure.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="How often each system is measured on each case.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long one measurement takes.")] = 1.0,
    listing: Annotated[bool, typer.Option("--list", help="Name the cases and end.")] = False,
) -> None:
    """Measure the byte path: all cases on all systems, unless some are named."""
    if listing:
        for each in CASES:
            console.print(f"{each.name:16}{each.title} ({', '.join(each.systems)})")
        return
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        cases = select(case or (), system or ())
        failed = _bench(cases, runs, seconds, whole=not case and not system)
    except (LocalError, CannotRun, ValueError) as error:
        trouble.print(f"bench: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        trouble.print("bench: interrupted; everything it had started is gone")
        raise typer.Exit(130) from None
    raise typer.Exit(1 if failed else 0)


def _bench(cases: Sequence[Case], runs: int, seconds: float, whole: bool) -> int:
    """How many measurements failed."""
    if not LOAD.exists():
        raise LocalError(f"{LOAD} is not built: make bench builds it")
    jobs, conditions = schedule(cases, runs), _conditions()
    with Progress(*COLUMNS, console=trouble) as progress:
        task = progress.add_task("Preparing", total=len(jobs))

        def tell(sentence: str) -> None:
            progress.update(task, description=sentence)
            if not trouble.is_terminal:
                progress.console.print(sentence, markup=False)

        systems = list(dict.fromkeys(job.system for job in jobs))
        if Name.HAPROXY in systems:
            haproxy.install(tell)
        with testbed(tell, INSTANCE) as bed, running(bed, systems) as known, ExitStack() as more:
            through = more.enter_context(waypoints.running(bed, tell)) if any(case.mode in L7 for case in cases) else {}
            half_rate = _half_rate(bed, through) if through else 0.0
            before = look(bed.instance.cgroup)

            def one(job: Job) -> Figures:
                if job.case.mode in L7:
                    return requests.measure(through[job.system], job.case, seconds, bed.files, half_rate)
                return measure(bed, known[job.system], job.case, seconds)

            measured, complaints = _run(one, jobs, progress)
            others = cores_of_others(before, look(bed.instance.cgroup))
    conditions += f"; other processes used {others:.2f} cores"
    _report(cases, measured, complaints, conditions, whole)
    if others > BUSY:
        trouble.print("The machine was busy with other things: tails (p99) and small differences mean little.")
    return len(complaints)


def _half_rate(bed: Testbed, through: Mapping[Name, System]) -> float:
    """Of what Ambit's waypoint does with HTTP/1.1, once it is warm."""
    case = next(case for case in CASES if case.mode is Mode.HTTP1)
    for system in through.values():
        requests.measure(system, case, CALIBRATION, bed.files, 0.0)
    return requests.measure(through[Name.AMBIT], case, CALIBRATION, bed.files, 0.0)["rate"] / 2


def _run(one: Callable[[Job], Figures], jobs: Sequence[Job], progress: Progress) -> tuple[Measured, list[str]]:
    task = progress.task_ids[0]
    measured: Measured = []
    complaints = []
    for job in jobs:
        progress.update(task, description=f"{job.case.name} · {job.system}")
        try:
            measured.append((job, one(job)))
        except (LocalError, CannotRun, OSError) as error:
            complaints.append(f"{job.case.name} on {job.system}, run {job.run + 1}: {error}")
            progress.console.print(f"[red]failed[/red] {complaints[-1]}")
        progress.advance(task)
    return measured, complaints


def _report(cases: Sequence[Case], measured: Measured, complaints: Sequence[str], conditions: str, whole: bool) -> None:
    found = rows(cases, measured)
    RESULTS.write_text(json.dumps(as_json(found), indent=1) + "\n")
    names = [name for name in Name if any(name in row.results for row in found)]
    console.print(table.render(found, names))
    console.print(f"{conditions}. Spread of each figure: {RESULTS.relative_to(ROOT)}")
    if whole:
        CHART.write_text(chart.draw(found, conditions))
        PAGE.write_text(document.insert(PAGE.read_text(), found, conditions))
        console.print(f"Chart: {CHART.relative_to(ROOT)}; figures also in {PAGE.relative_to(ROOT)}")
    for complaint in complaints:
        trouble.print(f"failed: {complaint}", style="red", markup=False)


def _conditions() -> str:
    """When and where."""
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True)
    system = os.uname()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit.stdout.strip() or 'unknown'}, {os.cpu_count()} cores for all, "
        f"Linux {system.release} {system.machine}"
    )


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.argv[0] = "bench"
    typer.run(main)
