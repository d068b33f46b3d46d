"""Runs a soak: `make soak`, or `python -m perf.soak --minutes 15 --load 0.5`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy.local.entry import CannotRun
from deploy.local.errors import LocalError
from perf.bench.place import stop
from perf.bench.testbed import APP, LOAD, PATIENCE, Testbed, testbed, until
from perf.soak import look, verdict
from perf.soak.verdict import Finding, Held, Sample

CAPACITY_SECONDS = 5.0  # of which memory takes its shape, too
SAMPLES = 120  # over the whole time, but no more than one a second
REST = 30.0  # seconds in which a mesh must have come to rest

console = Console(highlight=False, width=max(Console().width, 110))
trouble = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Soak:
    """What was done, and what it has shown."""

    actions: int
    rate: float  # actions per second that were asked for
    errors: int
    remark: str  # of the load program
    findings: list[Finding]


def main(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long the load goes on.")] = 15.0,
    load: Annotated[float, typer.Option(min=0.01, max=1, help="Which part of the capacity is used.")] = 0.5,
    instance: Annotated[
        str, typer.Option(help="The local mesh to make: there is one of a name at a time.")
    ] = "ambit-soak",
) -> None:
    """A local mesh of its own under load: is memory flat, and is all given back afterwards?"""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        soak = _soak(minutes * 60, load, instance)
    except (LocalError, CannotRun, OSError) as error:
        trouble.print(f"soak: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        trouble.print("soak: interrupted; everything it had started is gone")
        raise typer.Exit(130) from None
    raise typer.Exit(0 if _report(soak, minutes) else 1)


def _soak(seconds: float, part: float, instance: str) -> Soak:
    if not LOAD.exists():
        raise LocalError(f"{LOAD} is not built: make soak builds it")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=trouble, disable=not trouble.is_terminal) as progress:
        task = progress.add_task("Preparing", total=seconds)

        def tell(sentence: str) -> None:
            progress.update(task, description=sentence)

        with testbed(tell, instance) as bed:
            tell("Measuring the capacity")
            until(lambda: _works(bed), "the path through the mesh")
            rate = max(1.0, part * _capacity(bed))
            return _under_load(bed, rate, seconds, lambda at: progress.update(task, completed=at, description="Load"))


def _under_load(bed: Testbed, rate: float, seconds: float, progress: Callable[[float], None]) -> Soak:
    pids = look.processes(bed)
    before = _await_rest(bed, pids, {})
    memory_before = look.sample(0, pids).memory
    process = _start_load(bed, rate, seconds)
    samples: list[Sample] = []
    queues: list[Held] = []
    began = time.monotonic()
    try:
        while process.poll() is None and time.monotonic() - began < seconds + PATIENCE:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(1.0, seconds / SAMPLES))
            at = time.monotonic() - began
            progress(at)
            if process.poll() is None and at < seconds:
                samples.append(look.sample(at, pids))
                queues.append(look.queues(bed))
        said, remark = _finish(process)
    finally:
        stop(process)
    if len(samples) < 3:
        raise LocalError("the load ended before anything could be seen")
    after = _await_rest(bed, pids, before)
    findings = verdict.memory(samples, memory_before, look.sample(0, pids).memory)
    findings += verdict.left_over(before, verdict.highest(samples, queues), after)
    return Soak(int(said["total"]), rate, int(said["errors"]), remark, findings)


def _await_rest(bed: Testbed, pids: dict[str, int], wanted: Held) -> Held:
    """Until no connection is left and no more is held than `wanted`, or for as long as that may take."""
    deadline = time.monotonic() + REST
    while True:
        held = look.at_rest(bed, pids)
        standing = sum(held[f"{node}: connections"] for node in look.NODES)
        if not standing and all(held[name] <= wanted[name] for name in wanted if name in held):
            return held
        if time.monotonic() > deadline:
            return held
        time.sleep(0.5)


# --- the load program


def _start_load(bed: Testbed, rate: float, seconds: float) -> subprocess.Popen[str]:
    words = [str(LOAD), "mixed", bed.mesh.server.ip, str(APP), f"{rate:.1f}", str(seconds)]
    pipe = subprocess.PIPE
    return bed.mesh.client.start(words, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL)


def _finish(process: subprocess.Popen[str]) -> tuple[dict[str, float], str]:
    """Raises LocalError."""
    try:
        out, remark = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise LocalError("the load program hangs") from None
    if process.returncode:
        raise LocalError(remark.strip() or f"the load program ended with {process.returncode}")
    said: dict[str, float] = json.loads(out)
    return said, remark.strip()


def _run(bed: Testbed, rate: float, seconds: float) -> dict[str, float]:
    process = _start_load(bed, rate, seconds)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return _finish(process)[0]
    finally:
        stop(process)


def _works(bed: Testbed) -> bool:
    return not _run(bed, 20, 0.5)["errors"]


def _capacity(bed: Testbed) -> float:
    """Actions per second."""
    said = _run(bed, 0, CAPACITY_SECONDS)
    if said["errors"]:
        raise LocalError(f"{said['errors']:.0f} actions failed at full load")
    return said["total"] / CAPACITY_SECONDS


# --- the table


def _report(soak: Soak, minutes: float) -> bool:
    table = Table(box=box.SIMPLE_HEAD, highlight=False)
    for head in ("", "before", "highest", "after", "trend", "verdict"):
        table.add_column(head, justify="left" if head in ("", "verdict") else "right", no_wrap=True)
    for one in soak.findings:
        style = "red" if one.complaint else ""
        words = (one.subject, one.before, one.highest, one.after, one.trend, one.complaint or "good")
        table.add_row(*words, style=style)
    console.print(table)
    console.print(
        f"{soak.actions:,} actions in {minutes:g} minutes ({soak.rate:,.0f} per second were asked for), "
        f"{soak.errors} failed. {soak.remark}"
    )
    console.print(
        f"trend: the line through the last two thirds; more than {verdict.mib(verdict.MEMORY_TOLERANCE)} is a leak"
    )
    bad = [one.subject for one in soak.findings if one.complaint]
    if soak.errors:
        bad.append("actions that failed")
    console.print(f"Not good: {', '.join(bad)}." if bad else "Memory is flat, and nothing was left behind.")
    return not bad


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.argv[0] = "soak"
    typer.run(main)
